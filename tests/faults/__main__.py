"""Command of the fault campaign: `bash scripts/faults.sh [--quick]`."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from coft.core.errors import Parser
from coft.core.exit_codes import guarded

from .campaign import CATEGORIES, cases_of, run_cases
from .generate import sample
from .verdict import FAULT, Outcome


def make_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = Parser(prog="scripts/faults.sh", description="Test bad inputs and faults, and count the outcomes.")
    parser.add_argument("--quick", action="store_true", help="run a sample of the slow categories")
    only = f"of {', '.join(CATEGORIES)}"
    parser.add_argument(
        "--only", nargs="+", default=[*CATEGORIES], choices=[*CATEGORIES], metavar="CATEGORY", help=only
    )
    parser.add_argument("--seed", type=int, help="of the generated cases; default: 0 with --quick, else a new one")
    parser.add_argument("--verbose", action="store_true", help="show all error messages, not only those of faults")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the campaign, and print the outcomes as a table in Markdown. Returns 1 if there is a fault."""
    args = make_parser().parse_args(argv)
    sample["seed"] = args.seed if args.seed is not None else 0 if args.quick else secrets.randbelow(1 << 32)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell, also by its runs
    os.environ.pop("CALLED_FROM", None)  # relative paths of cases start in their folders
    os.environ["DASSL_PROGRESS"] = "0"
    torch.set_num_threads(1)
    begin, rows = time.monotonic(), list[tuple[str, str]]()
    with tempfile.TemporaryDirectory(prefix="coft-faults-") as shared:
        for category in args.only:
            cases = cases_of(category, args.quick)
            progress = tqdm(cases, category, unit="case", disable=None, leave=False)
            for case, outcome, message in run_cases(progress, Path(shared)):
                if outcome is FAULT or (args.verbose and message):
                    tqdm.write(f"{category}, {case.name}: {outcome.value}: {message}")
                rows.append((category, outcome.value))
    results = pd.DataFrame(rows, columns=["category", "outcome"])
    faults = int((results.outcome == FAULT.value).sum())
    seconds = time.monotonic() - begin
    print(f"{len(rows):,} cases in {seconds:,.0f} seconds, seed {sample['seed']}. Faults: {faults}.\n")
    counts = pd.crosstab(results.category, results.outcome, margins=True, margins_name="all")
    columns = [name for name in ("all", *(outcome.value for outcome in Outcome)) if name in counts]
    counts = counts.reindex(index=[*args.only, "all"], columns=columns).rename(columns={"all": "cases"})
    print(counts.to_markdown(tablefmt="github"))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
