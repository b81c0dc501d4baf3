"""Tables as Markdown and LaTeX."""

from __future__ import annotations

import pandas as pd

from scripts.comparing.tables import latex, markdown, render


def test_cells_do_not_break_a_table() -> None:
    cells = pd.DataFrame([{"method": "a|b", "mean": 1.0, "difference": -0.04}, {"method": "c", "difference": -0.06}])
    assert [line.split(" | ")[-1].strip(" |") for line in render(cells).splitlines()[2:]] == ["+0.0", "-0.1"]
    assert r"a\|b" in render(cells)
    assert "a|b" in render(cells, "latex_booktabs")
    assert markdown([["a|b", "1"]], ["c|d", "e"]).replace(r"\|", "").count("|") == 3 * 3


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
