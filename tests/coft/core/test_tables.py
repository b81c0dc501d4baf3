"""Tables of many images: a few rows at a time have the same bits as all at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from coft.core import tables
from coft.core.tables import Rows, chunks, each_row, map_rows
from coft.labelling.neighbours import NeighbourGraph
from coft.labelling.pseudo_labels import correct_prior_, select_seeds
from coft.method.labeller import predict


def logits(n: int, c: int, seed: int) -> torch.Tensor:
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed)) * 3


def test_rows_must_all_come() -> None:
    rows = Rows(5)
    with pytest.raises(ValueError, match="0 rows came, 5"):
        rows.table()
    rows.add(torch.ones(3, 2))
    with pytest.raises(ValueError, match="3 rows came, 5"):
        rows.table()
    rows.add(torch.zeros(2, 2))
    assert rows.table().sum() == 6


def test_a_table_is_allocated_once_as_its_rows_are() -> None:
    asked: list[Any] = []

    def allocate(*shape: Any) -> torch.Tensor:
        asked.append(shape)
        return tables.in_memory(*shape)

    x = logits(5, 3, 0).double()
    assert torch.equal(map_rows(lambda rows: rows[:, :2] * 2, x, allocate=allocate), x[:, :2] * 2)
    assert asked == [(5, 2, torch.float64)]


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_a_few_rows_at_a_time_or_all_at_once(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", rows)
    x, y = (logits(64, 5, seed) for seed in range(2))
    assert torch.equal(torch.cat([part for part, _ in chunks(x, y)]), x)
    assert torch.equal(map_rows(lambda a, b: a - b, x, y), x - y)
    assert torch.equal(each_row(lambda a: a.argmax(dim=1), x), x.argmax(dim=1))
    corrected = [correct_prior_(table.clone(), 0.5) for table in (x, y)]
    reported = predict(x.clone(), y.clone(), 0.5, "raw")
    torch.testing.assert_close(reported.probability, corrected[0].softmax(1))
    torch.testing.assert_close(reported.clean, corrected[1].sigmoid())
    assert torch.equal(reported.label, corrected[0].argmax(1))
    graph = NeighbourGraph(logits(64, 6, 3), 3, anchors=20)
    together = predict(x.clone(), y.clone(), 0.5, "raw", graph)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "ROWS", 4096)
        whole = predict(x.clone(), y.clone(), 0.5, "raw", NeighbourGraph(logits(64, 6, 3), 3, anchors=20))
    torch.testing.assert_close(together.probability, whole.probability)
    torch.testing.assert_close(together.clean, whole.clean)
    assert torch.equal(together.label, whole.label)


@pytest.mark.parametrize("seed", range(5))
def test_seeds_are_the_same_for_any_number_of_rows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, quotas = logits(50, 4, seed), torch.tensor([3, 0, 30, 5])
    expected = select_seeds(x, quotas)
    monkeypatch.setattr(tables, "ROWS", 3)
    found = select_seeds(x, quotas)
    assert torch.equal(found.index, expected.index) and torch.equal(found.label, expected.label)
