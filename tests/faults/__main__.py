"""Command of the fault campaign: `bash scripts/faults.sh [--quick | --write]`."""

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

from .campaign import CATEGORIES, count_faults, read_stored, run_category, store, summary, table, write
from .generate import sample
from .verdict import Result


def make_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = Parser(prog="scripts/faults.sh", description="Test bad inputs and faults, and count the outcomes.")
    parser.add_argument("--quick", action="store_true", help="run a sample of the slow categories")
    parser.add_argument("--only", nargs="+", default=[], metavar="CATEGORY", help=f"of {', '.join(CATEGORIES)}")
    parser.add_argument("--write", action="store_true", help="write the results to docs/reliability.md")
    parser.add_argument(
        "--keep", type=called_from, metavar="DIR", help="store results there; resume after the last finished category"
    )
    parser.add_argument("--seed", type=int, help="of the generated cases; default: 0 with --quick, else a new one")
    parser.add_argument("--verbose", action="store_true", help="show all error messages, not only those of faults")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the campaign. Returns 1 if there is a fault.

    Raises:
        UserError: If a category is unknown, or --write is combined with a part of the campaign.
    """
    args = make_parser().parse_args(argv)
    if unknown := [name for name in args.only if name not in CATEGORIES]:
        raise UserError(f"--only: no category {unknown[0]!r}; {did_you_mean(unknown[0], CATEGORIES)}")
    if args.write and (args.only or args.quick):
        raise UserError("--write: the page has the table of all cases; leave out --only and --quick")
    args.keep = args.keep and args.keep.resolve() / ("quick" if args.quick else "whole")
    sample["seed"] = choose_seed(args)
    print(f"seed {sample['seed']}; repeat this sample with --seed {sample['seed']}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell, also by its runs
    os.environ.pop("CALLED_FROM", None)  # relative paths of cases start in their folders
    os.environ["DASSL_PROGRESS"] = "0"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="coft-faults-") as shared:
        results = pd.concat(
            [results_of(name, args, Path(shared)) for name in args.only or CATEGORIES], ignore_index=True
        )
    print(table(results))
    print(summary(results))
    if args.write:
        write(results)
    return int(count_faults(results) > 0)


def choose_seed(args: argparse.Namespace) -> int:
    """Return the given seed, the stored one, or a new one, which is then stored."""
    stored_seed = args.keep and args.keep / "seed"
    if args.seed is not None or args.quick:
        return args.seed or 0
    if stored_seed and stored_seed.is_file():
        return int(stored_seed.read_text())
    seed = secrets.randbelow(1 << 32)
    if stored_seed:
        stored_seed.parent.mkdir(parents=True, exist_ok=True)
        stored_seed.write_text(str(seed))
    return seed


def results_of(category: str, args: argparse.Namespace, shared: Path) -> pd.DataFrame:
    """Return the stored results of a category, or run it."""

    def show(result: Result) -> None:
        if result.is_fault or (args.verbose and result.message):
            tqdm.write(f"{result.case.category}, {result.case.name}: {result.outcome.value}: {result.message}")

    if args.keep and (results := read_stored(category, args.keep)) is not None:
        return results
    results = run_category(category, args.quick, shared, show)
    if args.keep:
        store(results, args.keep)
    return results


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
