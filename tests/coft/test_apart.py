"""The algorithm (labels, losses) is independent of its execution (processes, threads, devices, memory)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coft.core.table import Table
from tests.coft.toys import begin_at, make_coft, make_plus

ROOT = Path(__file__).resolve().parents[2] / "coft"
ALGORITHM = [path for folder in ("labelling", "method") for path in sorted((ROOT / folder).glob("*.py"))]
EXECUTION = {
    "world",
    "rank",
    "part",
    "parts",
    "shard",
    "allocate",
    "chunk",
    "chunks",
    "device",
    "out",
    "threads",
}


def functions_of(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


@pytest.mark.parametrize("path", ALGORITHM, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_signatures_have_no_arguments_of_execution(path: Path) -> None:
    for function in functions_of(path):
        arguments = {a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)}
        assert not arguments & EXECUTION, f"{path.name}: {function.name}({', '.join(arguments & EXECUTION)})"
        in_place = function.name.endswith("_") and not function.name.startswith("_")
        assert not in_place, f"{path.name}: {function.name} has a name that ends in _ like an in-place function"


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
