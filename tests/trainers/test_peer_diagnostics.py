"""What the peers of a finished run know, measured and shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from coft.core.experiment import flatten
from scripts.comparing.experiments import means_by_pair, write_report
from scripts.comparing.figures import write_experiments
from scripts.comparing.peer_diagnostics import SCORES, STAGES, measure


def test_a_finished_run_is_measured_and_shown(
    trained: Callable[..., Any], run: Callable[..., Any], tmp_path: Path
) -> None:
    built = trained("CoFTOracle")
    measured = measure(run("CoFTOracle", train=False), Path(built.output_dir))
    for stage in STAGES:
        assert {*SCORES, "alike", "accuracy"} == measured[stage].keys() and 0 <= measured[stage]["accuracy"] <= 1
    names = ["full", "filter of AUROC 0.7", "filter of AUROC 1", "surest 30 %", "constant rate"]
    table = pd.DataFrame({"variant": names, "final": [70.0, 69, 80, 71, 70.5]})
    table = table.assign(dataset="Shapes", backbone="tiny", change=[float("nan"), -1, 10, 1, 0.5])
    peers = means_by_pair([{"pair": "Shapes, tiny", **flatten(measured)}])
    report = write_report("bash scripts/experiments.sh shapes", table, peers)
    assert "Shapes, tiny" in report and "second linear head" in report and "filter of AUROC 0.7" in report
    assert write_experiments(tmp_path / "a.png", report).stat().st_size > 10_000
