"""Tables of finished runs: mean and standard deviation over seeds, from their summary.json.

bash scripts/table.sh [FOLDER ...]      (default: output)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

STAGES = ("after Phase I", "after Phase II")


def read_runs(folders: Sequence[str]) -> pd.DataFrame:
    """Read all summaries below some folders.

    Returns:
        A line for each result: dataset, backbone, method, images with labels, seed, accuracy (percent), seconds.
    """
    paths = sorted(path for folder in folders for path in Path(folder).rglob("summary.json"))
    return pd.DataFrame([row for path in paths for row in run_rows(json.loads(path.read_text(encoding="utf-8")))])


def run_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of one run: its test accuracy, or for CoFT one after each phase."""
    method = summary["trainer"] + (f", {summary['shots']} shots" if summary["shots"] > 0 else "")
    common = {key: summary[key] for key in ("dataset", "backbone", "seed", "seconds")}
    results = summary["results"]
    stages = [stage for stage in STAGES if stage in results]
    if not stages:
        return [{**common, "method": method, "accuracy": results["accuracy_test"]}]
    rows = [(f"{method}, {stage}", results[stage]["accuracy_both"], results[stage]["seconds"]) for stage in stages]
    return [{**common, "method": name, "accuracy": value, "seconds": seconds} for name, value, seconds in rows]


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds; the standard deviation is that of the sample."""
    groups = runs.groupby(["dataset", "backbone", "method"], sort=False)
    table = groups.agg(
        seeds=("seed", "nunique"), mean=("accuracy", "mean"), std=("accuracy", "std"), s=("seconds", "mean")
    )
    return table.reset_index().sort_values(["dataset", "backbone", "mean"]).rename(columns={"s": "seconds"})


def main(folders: Sequence[str]) -> int:
    """Print the table.

    Returns:
        0, or 2 where there is nothing to tabulate.
    """
    runs = read_runs(folders or ["output"])
    if runs.empty:
        print(f"error: no summary.json below {', '.join(folders) or 'output'}; run a trainer first", file=sys.stderr)
        return 2
    table = summarise(runs).astype(object).where(lambda t: t.notna(), None)  # one seed has no standard deviation
    print(tabulate(table, headers="keys", showindex=False, floatfmt=".1f", tablefmt="github", missingval="-"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
