"""Compares all golden runs with what they were, or writes what they are."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from coft.backbones import backbone
from tests.golden import runs


def work(case: tuple[str, str], data: Path) -> tuple[tuple[str, str], dict[str, Any] | str]:
    """Make one run, in a process of its own."""
    torch.set_num_threads(1)
    backbone.FEATURE_CACHE = None  # features of an earlier version would serve this one
    with tempfile.TemporaryDirectory() as folder:
        try:
            return case, runs.do(*case, data, Path(folder) / "run")
        except Exception as error:
            return case, f"{type(error).__name__}: {error}"


def main() -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write golden.json")
    parser.add_argument("--only", default="", metavar="TEXT", help="runs that have this in their names")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    golden = runs.load()
    exact = golden["machine"] == runs.machine()
    if args.write and args.only and not exact:
        parser.error(f"golden.json is of another machine ({golden['machine']}): write all runs, without --only")
    cases = [case for case in runs.cases() if args.only in ", ".join(case)]
    wrong = 0
    with tempfile.TemporaryDirectory() as data, ProcessPoolExecutor(args.jobs) as pool:
        runs.write_data(Path(data))
        for future in [pool.submit(work, case, Path(data)) for case in cases]:
            case, found = future.result()
            name = ", ".join(case)
            if args.write and isinstance(found, dict):
                golden["runs"][name] = found
            differing = runs.differences(found, golden["runs"].get(name), exact or args.write)
            wrong += bool(differing)
            print("\n  ".join([f"{'DIFFERS' if differing else 'same'}  {name}", *differing]), flush=True)
    if args.write:
        golden["machine"] = runs.machine()
        runs.GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    note = "" if exact or args.write else f" (not to the bit: golden.json is of {golden['machine']})"
    print(f"{len(cases)} runs, {wrong} differ{note}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
