"""Steps of several models at the same time."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from coft.core.parallel import SMALL, Parallel


@pytest.mark.usefixtures("two_threads")
def test_calls_run_at_the_same_time_each_with_its_share_of_threads() -> None:
    meeting = threading.Barrier(2, timeout=60)

    def call(name: str) -> tuple[str, int]:
        meeting.wait()  # nobody passes alone
        return name.upper(), torch.get_num_threads()

    assert Parallel(2, nn.Linear(2, 2), "cpu").map(call, ["a", "b"]) == [("A", 1), ("B", 1)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("together", [True, False])
def test_the_first_exception_is_passed_on_when_all_have_ended(together: bool) -> None:
    ended = []

    def call(name: str) -> None:
        ended.append(name)
        raise RuntimeError(name)

    with pytest.raises(RuntimeError, match=r"^a$"):
        Parallel(2, nn.Linear(2, 2), "cpu").map(call, ["a", "b"], parallel=together)
    assert sorted(ended) == (["a", "b"] if together else ["a"]) and torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("count", "device", "weights"), [(1, "cpu", 10), (3, "cpu", 10), (2, "cuda", 10), (2, "cpu", SMALL + 1)]
)
def test_one_after_the_other_where_it_is_not_faster(count: int, device: str, weights: int) -> None:
    encoder = nn.Module()
    encoder.weight = nn.Parameter(torch.empty(weights, device="meta"))
    here = Parallel(count, encoder, device).map(lambda name: threading.get_ident(), ["a", "b"])
    assert here == [threading.get_ident()] * 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("count", [1, 2])
def test_precision_and_no_gradients_are_those_of_the_caller_in_every_thread(count: int) -> None:
    models: dict[str, Any] = {name: nn.Linear(48, 3) for name in ("a", "b")}
    images = torch.randn(5, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = {name: model(images) for name, model in models.items()}
        outputs = Parallel(count, nn.Linear(2, 2), "cpu").map_without_gradients(
            lambda n: models[n](images), ["a", "b"], "cpu"
        )
    assert list(outputs) == ["a", "b"]
    for name, got in outputs.items():
        assert got.dtype == torch.bfloat16 and not got.requires_grad and torch.equal(got, expected[name])


@pytest.mark.usefixtures("two_threads")
def test_threads_are_the_same_whether_calls_run_at_the_same_time_or_not() -> None:
    parallel = Parallel(2, nn.Linear(2, 2), "cpu")
    for together in (True, False):
        assert parallel.map(lambda name: torch.get_num_threads(), ["a", "b"], parallel=together) == [1, 1]
