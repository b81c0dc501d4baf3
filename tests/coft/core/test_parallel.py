"""Steps of several models in parallel."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from coft.core.parallel import SMALL, Parallel


@pytest.mark.usefixtures("two_threads")
def test_calls_run_in_parallel_and_share_the_threads() -> None:
    meeting = threading.Barrier(2, timeout=60)

    def call(name: str) -> tuple[str, int]:
        meeting.wait()  # needs both calls
        return name.upper(), torch.get_num_threads()

    assert Parallel(2, nn.Linear(2, 2), "cpu").map(call, ["a", "b"]) == [("A", 1), ("B", 1)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("parallel", [True, False])
def test_the_first_exception_is_raised_after_all_calls_have_ended(parallel: bool) -> None:
    ended = []

    def call(name: str) -> None:
        ended.append(name)
        raise RuntimeError(name)

    with pytest.raises(RuntimeError, match=r"^a$"):
        Parallel(2, nn.Linear(2, 2), "cpu").map(call, ["a", "b"], parallel=parallel)
    assert sorted(ended) == (["a", "b"] if parallel else ["a"]) and torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("count", "device", "weights"), [(1, "cpu", 10), (3, "cpu", 10), (2, "cuda", 10), (2, "cpu", SMALL + 1)]
)
def test_calls_run_in_turn_where_that_is_faster(count: int, device: str, weights: int) -> None:
    encoder = nn.Module()
    encoder.weight = nn.Parameter(torch.empty(weights, device="meta"))
    threads = Parallel(count, encoder, device).map(lambda name: threading.get_ident(), ["a", "b"])
    assert threads == [threading.get_ident()] * 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("count", [1, 2])
def test_threads_have_the_precision_of_the_caller_and_no_gradients(count: int) -> None:
    models: dict[str, Any] = {name: nn.Linear(48, 3) for name in ("a", "b")}
    images = torch.randn(5, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = {name: model(images) for name, model in models.items()}
        outputs = Parallel(count, nn.Linear(2, 2), "cpu").map_without_gradients(lambda n: models[n](images), ["a", "b"])
    assert list(outputs) == ["a", "b"]
    for name, output in outputs.items():
        assert output.dtype == torch.bfloat16 and not output.requires_grad and torch.equal(output, expected[name])


@pytest.mark.usefixtures("two_threads")
def test_the_number_of_threads_does_not_depend_on_parallel() -> None:
    runner = Parallel(2, nn.Linear(2, 2), "cpu")
    for parallel in (True, False):
        assert runner.map(lambda name: torch.get_num_threads(), ["a", "b"], parallel=parallel) == [1, 1]
