"""What the peers of a finished run know, measured and shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.comparing.experiments import draw, write_report
from scripts.comparing.peer_diagnostics import SCORES, STAGES, measure


def test_a_finished_run_is_measured_and_shown(
    trained: Callable[..., Any], run: Callable[..., Any], tmp_path: Path
) -> None:
    built = trained("CoFTOracle")
    found = measure(run("CoFTOracle", train=False), Path(built.output_dir))
    for stage in STAGES:
        assert {*SCORES, "alike", "accuracy"} == found[stage].keys() and 0 <= found[stage]["accuracy"] <= 1
    names = ["full", "filter of AUROC 0.7", "filter of AUROC 1", "surest 30 %", "constant rate"]
    table = pd.DataFrame({"variant": names, "final": [70.0, 69, 80, 71, 70.5]})
    table = table.assign(dataset="Shapes", backbone="tiny", change=[float("nan"), -1, 10, 1, 0.5])
    known = {("Shapes", "tiny"): [found]}
    report = write_report("bash scripts/experiments.sh shapes", table, known)
    assert "Shapes, tiny" in report and "second linear head" in report and "filter of AUROC 0.7" in report
    assert draw(tmp_path / "a.png", report).stat().st_size > 10_000
