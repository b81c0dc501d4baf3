"""Parts of each rank, and exchange between processes; a single process keeps its tensors."""

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
def test_parts_of_ranks_are_disjoint_and_even(count: int, size: int) -> None:
    parts = [list(range(count)[World(rank, size).part(count)]) for rank in range(size)]
    assert list(chain(*parts)) == list(range(count))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1 and (not count or parts[0])
    world = World(0, size)
    assert [list(range(count)[world.part(count, rank)]) for rank in range(size)] == parts


def table(dtype: torch.dtype) -> Tensor:
    return (torch.randn(COUNT, DIM, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)


DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.long)


def gather_and_collect(world: World) -> dict[str, Any]:
    """Gather and collect this rank's rows of a table, for several kinds of rows."""
    result: dict[str, Any] = {}
    for dtype in DTYPES:
        part = table(dtype)[world.part(COUNT)]
        result[f"gather {dtype}"], result[f"collect {dtype}"] = world.gather(part), world.collect(part)
        result[f"gather column {dtype}"] = world.gather(part[:, 0])
    result["gather bool"] = world.gather(table(torch.float32)[world.part(COUNT)][:, 0] > 0)
    last_rank_rows = table(torch.float32)[:3] if world.rank == world.size - 1 else torch.empty(0, 0)
    result["gather of one"], result["collect of one"] = world.gather(last_rank_rows), world.collect(last_rank_rows)
    result["gather of none"] = world.gather(torch.empty(0, 0))
    return result


@pytest.mark.parametrize("size", [1, 2, 4])
def test_rows_of_all_ranks_are_gathered_in_order(size: int, tmp_path: Path) -> None:
    results = in_world(size, gather_and_collect, tmp_path / "world")
    for rank, result in enumerate(results):
        for dtype in DTYPES:
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


def assert_equal(rows: list[Tensor], expected: list[Tensor]) -> None:
    assert len(rows) == len(expected)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(rows, expected, strict=True))


def content() -> dict[str, Any]:
    return {"index": torch.arange(3), "rows": torch.randn(2, 2).bfloat16(), "views": 3, "name": "é", "none": None}


def broadcast_from_the_main_process(world: World) -> Any:
    torch.manual_seed(world.rank)
    weight = torch.nn.Parameter(torch.randn(4, 3).t())  # not contiguous
    received = world.broadcast(content() if world.is_main else {"other": 1}), world.broadcast(None)
    world.broadcast_([weight, *(buffers := [torch.tensor(world.rank), torch.randn(2)])])
    world.barrier()
    return (
        received,
        weight.detach(),
        buffers,
        world.gather_text(f"é{world.rank}" * world.rank),
        world.is_main,
    )


def test_all_ranks_receive_what_the_main_process_broadcasts(tmp_path: Path) -> None:
    results = in_world(3, broadcast_from_the_main_process, tmp_path / "world")
    (sent, _), weight, buffers, *_ = results[0]
    assert sent.keys() == content().keys() and (sent["views"], sent["name"], sent["none"]) == (3, "é", None)
    for rank, ((received, nothing), other_weight, others, texts, is_main) in enumerate(results):
        assert nothing is None and received.keys() == sent.keys()
        assert all(torch.equal(received[key], sent[key]) for key in ("index", "rows"))
        assert received["rows"].dtype == torch.bfloat16 and (received["views"], received["name"]) == (3, "é")
        assert_equal([other_weight, *others], [weight, *buffers])
        assert texts == ["", "é1", "é2é2"] and is_main == (rank == 0)


def sums_and_gradients(world: World) -> Any:
    weight, unused, sometimes = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    (weight.sum() * (world.rank + 1)).backward()
    if world.rank:
        (sometimes * 3).sum().backward()
    numbers, values = [1.0, float(world.rank)], torch.tensor([1.0, world.rank])
    sums = world.add_gradients([weight, unused, sometimes], numbers)
    return world.sum(values), values, weight.grad, unused.grad, sometimes.grad, sums


def step_of_channels_last(world: World) -> Any:
    weight = torch.nn.Parameter(torch.ones(4, 3, 2, 2).to(memory_format=torch.channels_last))
    factors = (torch.arange(48.0) * 5 % 7 - 3.5).reshape(4, 3, 2, 2)
    (weight * factors).sum().backward()
    world.add_gradients([weight], [])
    assert weight.grad is not None and torch.equal(weight.grad, world.size * factors)
    torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0, fused=True).step()
    return weight.detach().contiguous(), factors


def test_a_fused_step_fits_weights_with_channels_last(tmp_path: Path) -> None:
    for weight, factors in in_world(2, step_of_channels_last, tmp_path / "world"):
        torch.testing.assert_close(weight, 1 - 0.1 * factors.sign())  # the first step of Adam has the gradient's sign


def test_numbers_and_gradients_are_summed(tmp_path: Path) -> None:
    for rank, result in enumerate(in_world(2, sums_and_gradients, tmp_path / "world")):
        total, values, weight, unused, sometimes, sums = result
        assert total.tolist() == [2, 1] and values.tolist() == [1, rank]  # unchanged
        assert weight.tolist() == [3, 3] and unused is None and sometimes.tolist() == [3, 3]
        assert sums == [2, 1]


def test_a_single_process_keeps_its_tensors() -> None:
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
