from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from scripts.comparing.compare import compare
from scripts.comparing.gain import gain_over_zero_shot, turning_points, write_gain
from scripts.comparing.statistics import summarise

from .toy_runs import write_summary

LEVELS = {"Digits": 90.0, "Icons": 60.0, "EuroSAT": 10.0}
GAINS = {"UPL": {"Digits": 2.0, "Icons": -1.0, "EuroSAT": -3.0}, "CoFT": dict.fromkeys(LEVELS, 4.0)}


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    rows = []
    for dataset, level in LEVELS.items():
        results = {"ZeroshotCLIP": level, "CoOp": level + 9, **{name: level + g[dataset] for name, g in GAINS.items()}}
        for name, accuracy in results.items():
            for seed, off in ((1, -0.5), (2, 0.5)) if name != "ZeroshotCLIP" else ((1, 0.0),):
                row = {"dataset": dataset, "backbone": "embedded", "method": name, "trainer": name, "seed": seed}
                rows.append({**row, "accuracy": accuracy + off, "labels_used": 160 if name == "CoOp" else 0})
    return pd.DataFrame(rows)


def test_gains_of_label_free_methods_by_zero_shot_accuracy(runs: pd.DataFrame) -> None:
    gains = gain_over_zero_shot(summarise(runs))
    found = [(row.method, row.dataset, row.zero_shot, row.difference) for row in gains.itertuples()]
    naive = [(m, d, LEVELS[d], GAINS[m][d]) for d in sorted(LEVELS, key=LEVELS.__getitem__) for m in GAINS]
    assert sorted(found) == sorted(naive) and [row[2] for row in found] == sorted(row[2] for row in naive)


def test_where_it_turns_negative_is_said(runs: pd.DataFrame) -> None:
    said = turning_points(gain_over_zero_shot(summarise(runs)))
    assert sorted(said) == [
        "CoFT: loses on none of 3 pairs of data set and backbone (zero-shot 10.0 to 90.0 %)",
        "UPL: loses on 2 of 3 pairs, the one with the highest zero-shot is Icons, embedded: -1.0 at 60.0 %; "
        "it loses on none of the 1 above",
    ]


def test_one_pair_makes_no_curve(runs: pd.DataFrame) -> None:
    assert gain_over_zero_shot(summarise(runs[runs["dataset"] == "Icons"])).empty
    without = runs[runs["trainer"] != "ZeroshotCLIP"]
    assert gain_over_zero_shot(summarise(without)).empty


def test_the_plot_has_a_panel_a_pair_and_an_interval_a_method(
    runs: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    drawn: dict[str, list[tuple[float, float, float]]] = {}
    plain = Axes.errorbar

    def spy(self: Axes, x: float, y: float, xerr: float, **settings: Any) -> Any:
        drawn.setdefault(str(id(self)), []).append((x, y, xerr))
        return plain(self, x, y, xerr=xerr, **settings)

    monkeypatch.setattr(Axes, "errorbar", spy)
    with Image.open(write_gain(tmp_path / "gain.png", gain_over_zero_shot(summarise(runs)))) as image:
        assert image.width > 600
    assert len(drawn) == 3
    half = 12.7062 * 0.5**0.5 / 2**0.5  # t of two seeds that are 1 apart
    expected = [[(GAINS[m][d], row, half) for row, m in enumerate(GAINS)] for d in sorted(LEVELS)]
    for points, panel in zip(drawn.values(), expected, strict=True):
        assert sorted(points, key=lambda point: point[1]) == [pytest.approx(point) for point in panel]


def test_comparisons_have_plot_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dataset, level in LEVELS.items():
        for name, more in (("ZeroshotCLIP", 0.0), ("UPL", GAINS["UPL"][dataset])):
            results = {"accuracy_test": level + more}
            write_summary(tmp_path / dataset / name, name, dataset=dataset, results=results, labels_used=0)
    assert compare(["--from", str(tmp_path), "--output", str(tmp_path / "out"), "--name", "x"]) == 0
    folder = tmp_path / "out" / "comparisons" / "x"
    assert (folder / "gain.png").is_file()
    line = "UPL: loses on 2 of 3 pairs"
    assert line in capsys.readouterr().out and f"- {line}" in (folder / "comparison.md").read_text()
