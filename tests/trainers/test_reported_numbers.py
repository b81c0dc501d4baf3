"""What metrics.csv reports is what docs/method.md explains."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "method.md"


@pytest.mark.parametrize("trainer", ["CoFT", "CoFTPlus"])
def test_the_page_explains_every_column(run: Callable[..., Any], trainer: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## What a run reports") :].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    explained = [name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    with (Path(run(trainer).output_dir) / "metrics.csv").open(newline="") as file:
        reported = next(csv.reader(file))
    assert sorted(reported) == sorted([*explained, "epoch", "stage"])
