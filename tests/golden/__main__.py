"""Compare all golden runs with golden.json, or write it."""

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


def run_case(case: tuple[str, str], data: Path) -> tuple[tuple[str, str], dict[str, Any] | str]:
    """Do one run in its own process. Returns the case, and its description or an error."""
    torch.set_num_threads(1)
    backbone.FEATURE_CACHE = None  # else features of an earlier version would be used
    with tempfile.TemporaryDirectory() as folder:
        try:
            return case, runs.run(*case, data, Path(folder) / "run")
        except Exception as error:
            return case, f"{type(error).__name__}: {error}"


def main() -> int:
    """Compare or write golden runs. Returns 1 if there is a difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write golden.json")
    parser.add_argument("--only", default="", metavar="TEXT", help="only runs with this text in their names")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    golden = runs.load()
    exact = golden["machine"] == runs.machine()
    if args.write and args.only and not exact:
        parser.error(f"golden.json comes from another machine ({golden['machine']}): write all runs, without --only")
    cases = [case for case in runs.cases() if args.only in ", ".join(case)]
    num_different = 0
    with tempfile.TemporaryDirectory() as data, ProcessPoolExecutor(args.jobs) as pool:
        runs.write_data(Path(data))
        for future in [pool.submit(run_case, case, Path(data)) for case in cases]:
            case, result = future.result()
            name = ", ".join(case)
            if args.write and isinstance(result, dict):
                golden["runs"][name] = result
            differing = runs.differences(result, golden["runs"].get(name), exact or args.write)
            num_different += bool(differing)
            print("\n  ".join([f"{'DIFFERS' if differing else 'same'}  {name}", *differing]), flush=True)
    if args.write:
        golden["machine"] = runs.machine()
        runs.GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    note = "" if exact or args.write else f" (compared up to rounding: golden.json comes from {golden['machine']})"
    print(f"{len(cases)} runs, {num_different} differ{note}")
    return int(num_different > 0)


if __name__ == "__main__":
    sys.exit(main())
