"""The campaign of faults as a command: `bash scripts/faults.sh [--quick | --write]`."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from coft.core.errors import Parser, UserError, did_you_mean
from coft.core.exit_codes import guarded
from scripts.paths import called_from

from .campaign import CATEGORIES, faults, in_words, keep, kept, played, table, write
from .drawing import chosen
from .oracle import Result


def make_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = Parser(prog="scripts/faults.sh", description="Try bad inputs and faults, and count what comes of them.")
    parser.add_argument("--quick", action="store_true", help="a share of those that take long, of each category some")
    parser.add_argument("--only", nargs="+", default=[], metavar="CATEGORY", help=f"of {', '.join(CATEGORIES)}")
    parser.add_argument("--write", action="store_true", help="write what comes of it to docs/reliability.md")
    parser.add_argument(
        "--keep", type=called_from, metavar="DIR", help="categories that are done are kept there: a stopped one goes on"
    )
    parser.add_argument("--seed", type=int, help="of what is drawn; default: 0 with --quick, else another each time")
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
    if args.write and (args.only or args.quick):
        raise UserError("--write: the page has the table of all cases; leave out --only and --quick")
    args.keep = args.keep and args.keep.resolve() / ("quick" if args.quick else "whole")
    chosen["seed"] = seed_of(args)
    print(f"seed {chosen['seed']}; repeat this sample with --seed {chosen['seed']}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it, and runs would, too
    os.environ.pop("CALLED_FROM", None)  # paths of cases are meant from their folders
    os.environ["DASSL_PROGRESS"] = "0"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="coft-faults-") as shared:
        results = pd.concat(
            [results_of(name, args, Path(shared)) for name in args.only or CATEGORIES], ignore_index=True
        )
    print(table(results))
    print(in_words(results))
    if args.write:
        write(results)
    return int(faults(results) > 0)


def seed_of(args: argparse.Namespace) -> int:
    """The seed that is given, that of what is kept, or a new one, which is kept then."""
    kept_seed = args.keep and args.keep / "seed"
    if args.seed is not None or args.quick:
        return args.seed or 0
    if kept_seed and kept_seed.is_file():
        return int(kept_seed.read_text())
    seed = secrets.randbelow(1 << 32)
    if kept_seed:
        kept_seed.parent.mkdir(parents=True, exist_ok=True)
        kept_seed.write_text(str(seed))
    return seed


def results_of(category: str, args: argparse.Namespace, shared: Path) -> pd.DataFrame:
    """What comes of a category, or has come of it in an earlier call."""

    def show(result: Result) -> None:
        if result.fault or (args.verbose and result.line):
            tqdm.write(f"{result.case.category}, {result.case.name}: {result.found.value}: {result.line}")

    if args.keep and (results := kept(category, args.keep)) is not None:
        return results
    results = played(category, args.quick, shared, show)
    if args.keep:
        keep(results, args.keep)
    return results


if __name__ == "__main__":
    sys.exit(guarded(lambda: campaign(sys.argv[1:])))
