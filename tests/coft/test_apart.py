"""The algorithm (labels, losses) is independent of its execution (processes, threads, devices, memory)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coft.core.table import Table
from tests.coft.toys import begin_at, make_coft, make_plus


@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_tables_and_labels_are_not_changed_in_place(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[tuple[Tensor, Tensor]] = []
    plain = Table.of.__func__  # type: ignore[attr-defined]

    def of(cls: type[Table], numbers: Tensor) -> Table:
        tables.append((numbers, numbers.clone()))
        return plain(cls, numbers)

    monkeypatch.setattr(Table, "of", classmethod(of))
    method = make()  # type: ignore[operator]
    begin_at(method)
    labels = [(tensor, tensor.clone()) for each in method.labels.values() for tensor in each.state_dict().values()]
    for epoch in (0, 1, 2, 4):
        method.engine.begin_epoch(epoch)
    assert len(tables) > 8 and len(labels) > 4
    assert all(torch.equal(tensor, before) for tensor, before in tables + labels)


def test_no_table_of_scores_is_read_as_a_whole() -> None:
    shapes: list[tuple[int, ...]] = []
    plain = Table.all

    def record(table: Table) -> Tensor:
        rows = plain(table)
        shapes.append(tuple(rows.shape))
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Table, "all", record)
        method = make_coft()
        begin_at(method, 2)
        method.engine.begin_epoch(4)
    classes = len(method.engine.clip.classnames)
    images = len(method.engine.images)
    wide = [shape for shape in shapes if shape[0] == images and len(shape) > 1 and shape[1] == classes]
    assert len(shapes) > 4 and not wide
