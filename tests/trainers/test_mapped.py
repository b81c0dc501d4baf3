"""Runs whose tables are mapped from files end in the same bits as runs that have them in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.method import tables

from .conftest import assert_same_bits, weights


@pytest.mark.parametrize("trainer", ["CoFT", "CoFTPlus", "DeFT", "GRIP", "SelfTraining", "UPL"])
def test_mapped_tables_change_no_bit(
    trainer: str, run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = run(trainer, out="memory")
    monkeypatch.setattr(tables, "IN_MEMORY", 0)
    made: list[Any] = []
    plain = torch.from_file
    monkeypatch.setattr(torch, "from_file", lambda *args, **options: made.append(args) or plain(*args, **options))
    mapped = run(trainer, out="mapped")
    assert made
    assert_same_bits(weights(in_memory), weights(mapped))
    left = [{path.name for path in (tmp_path / out).iterdir() if "table" in path.name} for out in ("memory", "mapped")]
    assert left == [set(), set()]
    if trainer.startswith("CoFT"):
        said = [(tmp_path / out / "pseudo_labels.csv").read_bytes() for out in ("memory", "mapped")]
        assert said[0] == said[1]
