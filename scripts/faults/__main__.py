"""The fault campaign as a command: `bash scripts/faults.sh [--quick]`."""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from tqdm import tqdm

from coft.runtime.ending import guarded
from coft.runtime.errors import Parser, UserError, did_you_mean

from .case import Case, Found, Result
from .categories import CATEGORIES, cases_of
from .messages import faults_of
from .play import play


def make_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = Parser(prog="scripts/faults.sh", description="Try bad inputs and faults, and count what comes of them.")
    parser.add_argument("--quick", action="store_true", help="cases of this process alone, and a share of the settings")
    parser.add_argument("--only", nargs="+", default=[], metavar="CATEGORY", help=f"of {', '.join(CATEGORIES)}")
    parser.add_argument("--verbose", action="store_true", help="show all messages, not those of faults alone")
    return parser


def campaign(argv: Sequence[str]) -> int:
    """Play the campaign.

    Returns:
        0, or 1 if there is a fault.

    Raises:
        UserError: If there is no such category.
    """
    args = make_parser().parse_args(argv)
    if wrong := [name for name in args.only if name not in CATEGORIES]:
        raise UserError(f"--only: no category {wrong[0]!r}; {did_you_mean(wrong[0], CATEGORIES)}")
    torch.set_num_threads(1)
    cases = cases_of(args.only or list(CATEGORIES), args.quick)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="coft-faults-") as shared:
        results = []
        for result in tqdm(play(cases, Path(shared)), total=len(cases), unit="case", disable=None, leave=False):
            results.append(result)
            show(result, args.verbose)
    print(table(cases, results))
    print(f"{len(results)} cases in {time.monotonic() - started:.0f} s")
    return int(any(result.fault or len(faults_of(result)) > 0 for result in results))


def show(result: Result, everything: bool) -> None:
    """Show a fault, or a message that does not help; or any message."""
    wrong = faults_of(result)
    if result.fault or wrong or (everything and result.line):
        words = "; ".join([result.found.value, *wrong])
        tqdm.write(f"{result.case.category}, {result.case.name}: {words}: {result.line}")


def table(cases: Sequence[Case], results: Sequence[Result]) -> str:
    """How often what was found, by category."""
    counts = collections.Counter((result.case.category, result.found) for result in results)
    poor = collections.Counter(result.case.category for result in results if faults_of(result))
    rows: list[list[Any]] = [
        [category, len([case for case in cases if case.category == category])]
        + [counts[category, found] for found in Found]
        + [poor[category]]
        for category in dict.fromkeys(case.category for case in cases)
    ]
    total = ["all", *(sum(row[i] for row in rows) for i in range(1, len(Found) + 3))]
    headers = ["category", "cases", *(found.value for found in Found), "poor message"]
    return tabulate([*rows, total], headers, tablefmt="github")


if __name__ == "__main__":
    sys.exit(guarded(lambda: campaign(sys.argv[1:])))
