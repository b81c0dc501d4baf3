"""Forms of a table, and what charts show of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scripts.comparing.figures import uses_labels, write_bars
from scripts.comparing.statistics import summarise
from scripts.comparing.tables import latex, render


def summary(labels: list[int]) -> pd.DataFrame:
    rows = [
        {"dataset": "D", "backbone": "B", "method": name, "trainer": "T", "seed": seed, "accuracy": 50.0 + seed}
        | {"labels_used": used}
        for name, used in zip(("a_b", "c & d"), labels, strict=True)
        for seed in (1, 2)
    ]
    return summarise(pd.DataFrame(rows))


def test_cells_do_not_break_a_table() -> None:
    cells = pd.DataFrame([{"method": "a|b", "mean": 1.0, "difference": -0.04}, {"method": "c", "difference": -0.06}])
    assert [line.split(" | ")[-1].strip(" |") for line in render(cells).splitlines()[2:]] == ["+0.0", "-0.1"]
    assert r"a\|b" in render(cells) and "a|b" in render(cells, "latex_booktabs")
    latex = render(summary([0, 0]), "latex_booktabs")
    assert r"a\_b" in latex and r"c \& d" in latex


def test_in_latex_the_best_mean_without_labels_is_bold() -> None:
    rows = [("D1", "x", 50.0, 0), ("D1", "y", 60.0, 0), ("D1", "CoOp", 70.0, 32), ("D_2", "x", 80.0, 0)]
    table = pd.DataFrame(rows, columns=["dataset", "method", "mean", "labels_used"]).assign(backbone="B")
    text = latex("Means of a_b", table, "bash scripts/compare.sh")
    assert text.startswith("% bash scripts/compare.sh\n\\begin{table}") and text.endswith("\\end{table}\n")
    assert r"\caption{Means of a\_b. Bold: the best mean without labels.}" in text
    assert [number for number in ("50.0", "60.0", "70.0", "80.0") if rf"\textbf{{{number}}}" in text] == [
        "60.0",
        "80.0",
    ]
    assert r"\textbf" not in latex("Changes", table.rename(columns={"mean": "final"}), "ablate.sh")


def test_what_reads_labels_is_known_by_the_trainer_where_the_number_is_not() -> None:
    nan = float("nan")
    cases = [("CoOp", nan, True), ("Supervised", nan, True), ("UPL", nan, False), ("Other", nan, False)]
    for trainer, used, expected in [*cases, ("Other", 5, True), ("CoOp", 0, False)]:
        assert uses_labels({"trainer": trainer, "labels_used": used}) == expected


T2 = 12.7062  # Student's t of two values, 95 %


def test_bars_that_use_labels_are_hatched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn: list[dict[str, Any]] = []
    plain = Axes.barh

    def spy(self: Axes, *args: Any, **settings: Any) -> Any:
        drawn.append(settings | {"values": list(args[1])})
        return plain(self, *args, **settings)

    monkeypatch.setattr(Axes, "barh", spy)
    path = write_bars(tmp_path / "bars.png", summary([0, 40]), "mean", "method", "accuracy")
    (bars,) = drawn
    assert bars["hatch"] == ["", "//"] and bars["values"] == [51.5, 51.5] and path.is_file()
    assert list(bars["xerr"]) == pytest.approx([T2 * 0.5] * 2)  # of two seeds that are 1 apart
