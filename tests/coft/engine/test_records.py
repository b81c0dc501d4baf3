from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from coft.engine.records import History, plot_curves, results_table


def history_of_run(folder: Path) -> History:
    history = History(folder, folder, 0)
    history.add(0, "zero-shot", accuracy_both=1 / 3, kept=32, of=100, precision=0.5, seconds=1.0)
    history.add(1, "phase1", accuracy_peer_a=50.0, accuracy_peer_b=51.0, accuracy_both=52.5, seconds=2.0)
    history.add(2, "phase2", accuracy_both=61.0, coverage=0.9, kept=90, of=100, precision=float("nan"), seconds=3.0)
    return history


@pytest.mark.parametrize("damage", ["1,phase1,2,3,4\n", "x,phase1\n", "\0", "\xff"])
def test_a_damaged_history_starts_empty(damage: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,stage\n0,zero-shot\n" + damage, encoding="latin-1")
    assert History(tmp_path, tmp_path, epochs_done=2).rows == []


def test_the_table_has_one_row_per_stage(tmp_path: Path) -> None:
    history = history_of_run(tmp_path)
    text = results_table(history)
    assert all(word in text for word in ("zero-shot", "after Phase I ", "after Phase II"))
    history.add(3, "phase2", accuracy_both=62.0)
    last = history.stage("phase2")
    assert (last["accuracy_both"], last["kept"], last["epoch"]) == (62.0, 90, 3) and history.stage("phase3") == {}
    assert "32 of 100" in text and "50.0 %" in text and "52.5" in text and "61.0" in text and "nan" not in text


def test_columns_and_plots_that_need_labels_are_left_out(tmp_path: Path) -> None:
    history = History(tmp_path, tmp_path, 0)
    history.add(0, "zero-shot", kept=32, of=100, precision=float("nan"), seconds=1.0)
    history.add(1, "phase1", kept=30, of=32, coverage=0.3, precision=float("nan"), seconds=2.0)
    header = results_table(history).splitlines()[1]
    assert [cell.strip() for cell in header.strip("│").split("│")] == ["stage", "pseudo-labels kept", "seconds"]
    plot_curves(history, tmp_path / "one.png")
    plot_curves(history_of_run(tmp_path), tmp_path / "two.png")
    widths = []
    for name in ("one", "two"):
        with Image.open(tmp_path / f"{name}.png") as image:
            widths.append(image.width)
    assert widths[1] == 2 * widths[0]


def test_a_resumed_history_has_the_same_numbers(tmp_path: Path) -> None:
    history = history_of_run(tmp_path)
    resumed = History(tmp_path, tmp_path, epochs_done=2)
    assert resumed.rows == history.rows and "precision" not in resumed.stage("phase2")
    assert {type(row[key]) for row in resumed.rows for key in ("epoch", "kept", "of") if key in row} == {int}


def test_a_resumed_history_has_the_same_columns(tmp_path: Path) -> None:
    for name in ("at once", "stopped"):
        history = History(tmp_path / name, tmp_path / name, 0)
        history.add(1, "phase1", precision=float("nan"), seconds=1.0)
        if name == "stopped":
            history = History(tmp_path / name, tmp_path / name, 1)
        history.add(2, "phase1", accuracy_both=50.0, precision=0.5, seconds=2.0)
    assert len({(tmp_path / name / "metrics.csv").read_bytes() for name in ("at once", "stopped")}) == 1
