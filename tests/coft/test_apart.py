"""The algorithm apart from its execution: what labels and losses are knows no process, no thread and no allocation."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coft.core.table import Table
from tests.coft.toys import begun, make_coft, make_plus

ROOT = Path(__file__).resolve().parents[2] / "coft"
ALGORITHM = [path for folder in ("labelling", "method") for path in sorted((ROOT / folder).glob("*.py"))]
OF_EXECUTION = {"world", "rank", "part", "parts", "shard", "allocate", "chunk", "chunks", "device", "out", "threads"}


def functions_of(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


@pytest.mark.parametrize("path", ALGORITHM, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_its_signatures_have_nothing_of_execution(path: Path) -> None:
    for function in functions_of(path):
        arguments = {a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)}
        assert not arguments & OF_EXECUTION, f"{path.name}: {function.name}({', '.join(arguments & OF_EXECUTION)})"
        in_place = function.name.endswith("_") and not function.name.startswith("_")
        assert not in_place, f"{path.name}: {function.name} says that it changes its argument"


@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_a_decision_changes_no_table_and_no_label_in_place(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    plain = Table.of.__func__  # type: ignore[attr-defined]

    def of(cls: type[Table], numbers: Tensor) -> Table:
        seen.append((numbers, numbers.clone()))
        return plain(cls, numbers)

    monkeypatch.setattr(Table, "of", classmethod(of))
    method = make()  # type: ignore[operator]
    begun(method)
    labels = [(tensor, tensor.clone()) for each in method.labels.values() for tensor in each.state_dict().values()]
    for epoch in (0, 1, 2, 4):
        method.engine.begin_epoch(epoch)
    assert len(seen) > 8 and len(labels) > 4
    assert all(torch.equal(tensor, before) for tensor, before in seen + labels)


def test_a_table_is_worked_out_where_it_is_asked_for() -> None:
    """No function of the algorithm asks for all rows of a table with a column a class."""
    asked: list[tuple[int, ...]] = []
    plain = Table.all

    def watched(table: Table) -> Tensor:
        rows = plain(table)
        asked.append(tuple(rows.shape))
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Table, "all", watched)
        method = make_coft()
        begun(method, 2)
        method.engine.begin_epoch(4)
    classes = len(method.engine.clip.classnames)
    images = len(method.engine.images)
    wide = [shape for shape in asked if shape[0] == images and len(shape) > 1 and shape[1] == classes]
    assert len(asked) > 4 and not wide
