"""Tables as Markdown."""

from __future__ import annotations

import pandas as pd

from scripts.comparing.tables import render


def test_cells_do_not_break_a_table() -> None:
    cells = pd.DataFrame([{"method": "a|b", "mean": 1.0, "difference": -0.04}, {"method": "c", "difference": -0.06}])
    assert [line.split(" | ")[-1].strip(" |") for line in render(cells).splitlines()[2:]] == ["+0.0", "-0.1"]
    assert r"a\|b" in render(cells)
