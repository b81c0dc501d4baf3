"""Several processes: which images are whose, and what they exchange, which a single one keeps as it is."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from coft.core.world import SINGLE_PROCESS, World
from tests.worlds import in_world

COUNT, DIM = 23, 5


@pytest.mark.parametrize("count", [0, 1, 3, 4, 23])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_image_is_of_one_rank(count: int, size: int) -> None:
    parts = [list(range(count)[World(rank, size).part(count)]) for rank in range(size)]
    assert list(chain(*parts)) == list(range(count))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1 and (not count or parts[0])
    world = World(0, size)
    assert [list(range(count)[world.part(count, rank)]) for rank in range(size)] == parts


def table(dtype: torch.dtype) -> Tensor:
    return (torch.randn(COUNT, DIM, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)


TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.long)


def rows_of_all(world: World) -> dict[str, Any]:
    """What becomes of this rank's rows of a table, by several kinds of rows."""
    result: dict[str, Any] = {}
    for dtype in TYPES:
        part = table(dtype)[world.part(COUNT)]
        result[f"gather {dtype}"], result[f"collect {dtype}"] = world.gather(part), world.collect(part)
        result[f"gather column {dtype}"] = world.gather(part[:, 0])
    result["gather bool"] = world.gather(table(torch.float32)[world.part(COUNT)][:, 0] > 0)
    alone = table(torch.float32)[:3] if world.rank == world.size - 1 else torch.empty(0, 0)
    result["gather of one"], result["collect of one"] = world.gather(alone), world.collect(alone)
    result["gather of none"] = world.gather(torch.empty(0, 0))
    return result


@pytest.mark.parametrize("size", [1, 2, 4])
def test_rows_of_all_ranks_come_together_in_order(size: int, tmp_path: Path) -> None:
    results = in_world(size, rows_of_all, tmp_path / "world")
    for rank, result in enumerate(results):
        for dtype in TYPES:
            rows = result[f"gather {dtype}"]
            assert rows.dtype == dtype and torch.equal(rows, table(dtype))
            assert torch.equal(result[f"gather column {dtype}"], table(dtype)[:, 0])
            parts = [table(dtype)[World(other, size).part(COUNT)] for other in range(size)] if rank == 0 else []
            assert_equal(result[f"collect {dtype}"], parts)
        assert torch.equal(result["gather bool"], table(torch.float32)[:, 0] > 0)
        assert torch.equal(result["gather of one"], table(torch.float32)[:3])
        assert len(result["gather of none"]) == 0
    assert [len(part) for part in results[0]["collect of one"]] == [0] * (size - 1) + [3]
    assert torch.equal(results[0]["collect of one"][-1], table(torch.float32)[:3])


def assert_equal(rows: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(rows) == len(wanted)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(rows, wanted, strict=True))


def content() -> dict[str, Any]:
    return {"index": torch.arange(3), "rows": torch.randn(2, 2).bfloat16(), "views": 3, "name": "é", "none": None}


def what_the_first_says(world: World) -> Any:
    torch.manual_seed(world.rank)
    weight = torch.nn.Parameter(torch.randn(4, 3).t())  # not contiguous
    heard = world.broadcast(content() if world.is_main else {"other": 1}), world.broadcast(None)
    world.broadcast_([weight, *(buffers := [torch.tensor(world.rank), torch.randn(2)])])
    world.barrier()
    return (
        heard,
        weight.detach(),
        buffers,
        world.gather_text(f"é{world.rank}" * world.rank),
        world.is_main,
        world.waited,
    )


def test_what_the_first_rank_says_is_heard_by_all(tmp_path: Path) -> None:
    results = in_world(3, what_the_first_says, tmp_path / "world")
    (sent, _), weight, buffers, *_ = results[0]
    assert sent.keys() == content().keys() and (sent["views"], sent["name"], sent["none"]) == (3, "é", None)
    for rank, ((heard, nothing), same, others, texts, is_main, waited) in enumerate(results):
        assert nothing is None and heard.keys() == sent.keys()
        assert all(torch.equal(heard[key], sent[key]) for key in ("index", "rows"))
        assert heard["rows"].dtype == torch.bfloat16 and (heard["views"], heard["name"]) == (3, "é")
        assert_equal([same, *others], [weight, *buffers])
        assert texts == ["", "é1", "é2é2"] and is_main == (rank == 0) and waited > 0


def sums_and_gradients(world: World) -> Any:
    weight, unused, sometimes = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    (weight.sum() * (world.rank + 1)).backward()
    if world.rank:
        (sometimes * 3).sum().backward()
    numbers, values = [1.0, float(world.rank)], torch.tensor([1.0, world.rank])
    sums = world.add_gradients([weight, unused, sometimes], numbers)
    return world.sum(values), values, weight.grad, unused.grad, sometimes.grad, sums


def test_numbers_and_gradients_are_added_up(tmp_path: Path) -> None:
    for rank, result in enumerate(in_world(2, sums_and_gradients, tmp_path / "world")):
        total, values, weight, unused, sometimes, sums = result
        assert total.tolist() == [2, 1] and values.tolist() == [1, rank]  # as they were
        assert weight.tolist() == [3, 3] and unused is None and sometimes.tolist() == [3, 3]
        assert sums == [2, 1]


def test_one_process_keeps_what_it_has() -> None:
    rows, weight = torch.ones(3, 2), torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    assert SINGLE_PROCESS.is_single and SINGLE_PROCESS.is_main and SINGLE_PROCESS.part(7) == slice(0, 7)
    assert (
        SINGLE_PROCESS.sum(rows) is rows
        and SINGLE_PROCESS.gather(rows) is rows
        and SINGLE_PROCESS.broadcast(rows) is rows
    )
    assert SINGLE_PROCESS.collect(rows) == [rows] and SINGLE_PROCESS.gather_text("here") == ["here"]
    assert SINGLE_PROCESS.add_gradients([weight], [2.0]) == [2.0] and weight.grad.tolist() == [1, 1]
    SINGLE_PROCESS.broadcast_([weight]), SINGLE_PROCESS.barrier()
    assert SINGLE_PROCESS.waited == 0
