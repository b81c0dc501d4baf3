"""Made-up results of the small benchmark, and their report."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scripts.comparing.benchmark import Entry, Unit, rows_of
from scripts.comparing.benchmark_tables import write_report
from scripts.comparing.list import Result, read_result
from scripts.comparing.plan import Run

from .toy_runs import write_summary

Planned = dict[Unit, list[Run]]
RATES = {"zero-shot": 0.5, "label propagation": 0.6, "UPL": 0.6, "CoFT": 0.8}


def finish(runs: list[Run], rates: dict[str, float] = RATES, images: int = 400) -> None:
    """Write the files of finished runs, with the given accuracies."""
    for run in runs:
        results = {"confidence_test": 100 * rates[run.method.name] + 3, "calibration_error_test": 4.0}
        versions = {"commit": "abc"}
        write_summary(run.folder, config=run.config, seed=run.seed, seconds=12.0, versions=versions, results=results)
        is_correct = np.random.default_rng(run.seed).random(images) < rates[run.method.name]
        table = pd.DataFrame(
            {"image": range(images), "class": "cat", "phase1": "dog", "end": np.where(is_correct, "cat", "dog")}
        )
        is_coft = run.method.trainer == "CoFT"
        table.drop(columns=[] if is_coft else ["phase1"]).to_csv(run.folder / "test_predictions.csv", index=False)
        if is_coft:
            last = [("zero-shot", None), ("phase1", None), ("phase2", 0.7), ("phase2", None), ("phase2", 0.9)]
            scores = pd.DataFrame(last, columns=["stage", "auroc_p_clean"])
            metrics = scores.assign(
                auroc_confidence=0.6, auroc_margin=0.5, pool_accuracy=[0.5, None, 0.625, None, 0.75]
            ).assign(mean_p_clean=[None, None, 0.66, None, 0.81])
            metrics.to_csv(run.folder / "metrics.csv", index=False)


def results_of(planned: Planned) -> dict[Run, Result]:
    return {run: result for runs in planned.values() for run in runs if (result := read_result(run))}


def report_of(planned: Planned, bars: Sequence[Entry] = ()) -> str:
    return write_report(rows_of(planned, results_of(planned)), "a command", bars)
