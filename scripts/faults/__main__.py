"""The fault campaign as a command: `bash scripts/faults.sh [--quick] [--write]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from coft.core.errors import Parser, UserError, did_you_mean
from coft.core.exit_codes import guarded
from scripts.paths import called_from

from .case import Result
from .categories import CATEGORIES, cases_of
from .messages import faults_of
from .play import play
from .table import Row, counted, in_words, keep, kept, table, write


def make_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = Parser(prog="scripts/faults.sh", description="Try bad inputs and faults, and count what comes of them.")
    parser.add_argument("--quick", action="store_true", help="cases of this process alone, and a share of the settings")
    parser.add_argument("--only", nargs="+", default=[], metavar="CATEGORY", help=f"of {', '.join(CATEGORIES)}")
    parser.add_argument("--write", action="store_true", help="write what comes of it to docs/reliability.md")
    parser.add_argument(
        "--keep", type=called_from, metavar="DIR", help="categories that are done are kept there: a stopped one goes on"
    )
    parser.add_argument("--verbose", action="store_true", help="show all messages, not those of faults alone")
    return parser


def campaign(argv: Sequence[str]) -> int:
    """Play the campaign.

    Returns:
        0, or 1 if there is a fault.

    Raises:
        UserError: If there is no such category, or what would be written is not of all of them.
    """
    args = make_parser().parse_args(argv)
    if wrong := [name for name in args.only if name not in CATEGORIES]:
        raise UserError(f"--only: no category {wrong[0]!r}; {did_you_mean(wrong[0], CATEGORIES)}")
    if args.write and args.only:
        raise UserError("--write: the page has the table of all categories; leave out --only")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="coft-faults-") as shared:
        rows = [row_of(name, args, Path(shared)) for name in args.only or CATEGORIES]
    print(table(rows))
    print(in_words(rows))
    if args.write:
        write(rows, args.quick)
    return int(any(row.faults for row in rows))


def row_of(category: str, args: argparse.Namespace, shared: Path) -> Row:
    """Play a category, unless an earlier call has."""
    folder = args.keep and args.keep / ("quick" if args.quick else "whole")
    if folder and (row := kept(category, folder)):
        return row
    cases, started, results = cases_of([category], args.quick), time.monotonic(), []
    for result in tqdm(play(cases, shared), category, len(cases), unit="case", disable=None, leave=False):
        results.append(result)
        show(result, args.verbose)
    row = counted(category, results, time.monotonic() - started)
    if folder:
        keep(row, folder)
    return row


def show(result: Result, everything: bool) -> None:
    """Show a fault, or a message that does not help; or any message."""
    wrong = faults_of(result)
    if result.fault or wrong or (everything and result.line):
        words = "; ".join([result.found.value, *wrong])
        tqdm.write(f"{result.case.category}, {result.case.name}: {words}: {result.line}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: campaign(sys.argv[1:])))
