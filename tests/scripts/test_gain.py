from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from scripts.comparing.compare import compare
from scripts.comparing.gain import gain_over_zero_shot, pair_labels, turning_points, write_gain
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


def test_where_it_turns_negative_is_told(runs: pd.DataFrame) -> None:
    told = turning_points(gain_over_zero_shot(summarise(runs)))
    assert sorted(told) == [
        "CoFT: loses on none of 3 pairs of data set and backbone (zero-shot 10.0 to 90.0 %)",
        "UPL: loses on 2 of 3 pairs, the one with the highest zero-shot is Icons, embedded: -1.0 at 60.0 %; "
        "it loses on none of the 1 above",
    ]


def test_one_pair_makes_no_curve(runs: pd.DataFrame) -> None:
    assert gain_over_zero_shot(summarise(runs[runs["dataset"] == "Icons"])).empty
    without = runs[runs["trainer"] != "ZeroshotCLIP"]
    assert gain_over_zero_shot(summarise(without)).empty


def test_pairs_that_would_overlap_share_a_label() -> None:
    levels = [("Icons", 60.0), ("Digits", 90.0), ("Emoji", 61.0), ("EuroSAT", 10.0), ("Emoji", 61.0), ("Cars", 62.0)]
    gains = pd.DataFrame([{"dataset": name, "backbone": "b", "zero_shot": level} for name, level in levels])
    # A fiftieth of the axis is 1.6: 62.0 is too far from 60.0, where the label stands.
    expected = [(10.0, "EuroSAT, b"), (60.0, "Icons, b\nEmoji, b"), (62.0, "Cars, b"), (90.0, "Digits, b")]
    assert pair_labels(gains) == expected


def test_the_plot(runs: pd.DataFrame, tmp_path: Path) -> None:
    path = write_gain(tmp_path / "gain.png", gain_over_zero_shot(summarise(runs)))
    with Image.open(path) as image:
        assert image.width > 600


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
