from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.tabulate_runs import main, read_runs, summarise


def write(folder: Path, seed: int, results: dict[str, Any], trainer: str = "UPL", shots: int = -1) -> None:
    path = folder / trainer / f"{shots}" / f"seed{seed}"
    path.mkdir(parents=True)
    common = {"dataset": "Digits", "backbone": "embedded", "seconds": 10.0 * seed}
    (path / "summary.json").write_text(
        json.dumps({"trainer": trainer, "seed": seed, "shots": shots, "results": results, **common})
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, accuracy in ((1, 80.0), (2, 82.0), (3, 87.0)):
        write(tmp_path, seed, {"accuracy_test": accuracy})
    write(tmp_path, 1, {"accuracy_test": 90.0}, "CoOp", shots=4)
    stages = {f"after Phase {n}": {"accuracy_both": 91.0 + len(n), "seconds": 5.0 * len(n)} for n in ("I", "II")}
    write(tmp_path, 1, {"accuracy_test": 93.0, **stages}, "CoFT")
    return tmp_path


def test_mean_and_sample_standard_deviation_over_seeds(folder: Path) -> None:
    rows = {row["method"]: row for row in summarise(read_runs([str(folder)])).to_dict("records")}
    upl = rows["UPL"]
    assert (upl["seeds"], upl["mean"], upl["seconds"]) == (3, 83.0, 20.0)
    assert upl["std"] == pytest.approx((((80 - 83) ** 2 + (82 - 83) ** 2 + (87 - 83) ** 2) / 2) ** 0.5)
    assert rows["CoOp, 4 shots"]["mean"] == 90.0
    assert (rows["CoFT, after Phase I"]["mean"], rows["CoFT, after Phase II"]["mean"]) == (92.0, 93.0)


def test_table_is_markdown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    text = capsys.readouterr().out
    assert "| Digits" in text and "nan" not in text


def test_nothing_to_tabulate_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
