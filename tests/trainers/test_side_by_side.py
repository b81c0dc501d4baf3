"""Peers that step at the same time do what they do one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from coft.method.labelling import answers_of
from coft.method.parallel import SMALL, SideBySide
from coft.runtime.errors import UserError
from tests.trainers.conftest import assert_same_bits, weights


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_calls_run_at_the_same_time_each_with_its_share_of_threads() -> None:
    meeting = threading.Barrier(2, timeout=60)

    def call(name: str) -> tuple[str, int]:
        meeting.wait()  # nobody passes alone
        return name.upper(), torch.get_num_threads()

    assert SideBySide(2, nn.Linear(2, 2), "cpu").map(call, ["a", "b"]) == [("A", 1), ("B", 1)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("together", [True, False])
def test_the_first_exception_is_passed_on_when_all_have_ended(together: bool) -> None:
    ended = []

    def call(name: str) -> None:
        ended.append(name)
        raise UserError(name)

    with pytest.raises(UserError, match=r"^a$"):
        SideBySide(2, nn.Linear(2, 2), "cpu").map(call, ["a", "b"], together=together)
    assert sorted(ended) == (["a", "b"] if together else ["a"]) and torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("count", "device", "weights"), [(1, "cpu", 10), (3, "cpu", 10), (2, "cuda", 10), (2, "cpu", SMALL + 1)]
)
def test_one_after_the_other_where_it_is_not_faster(count: int, device: str, weights: int) -> None:
    encoder = nn.Module()
    encoder.weight = nn.Parameter(torch.empty(weights, device="meta"))
    here = SideBySide(count, encoder, device).map(lambda name: threading.get_ident(), ["a", "b"])
    assert here == [threading.get_ident()] * 2


@pytest.mark.usefixtures("two_threads")
def test_answers_are_those_of_the_classifiers_without_gradients() -> None:
    classifiers: dict[str, Any] = {name: Pair() for name in ("a", "b")}
    images = torch.randn(5, 3, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = {name: classifier(images) for name, classifier in classifiers.items()}
        answers = answers_of(classifiers, images, SideBySide(2, nn.Linear(2, 2), "cpu"))
    for name, pair in answers.items():
        for got, wanted in zip(pair, expected[name], strict=True):
            assert got.dtype == torch.bfloat16 and not got.requires_grad and torch.equal(got, wanted)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("trainer", ["CoFT", "CoFTPlus", "Supervised"])
def test_training_has_the_same_bits_either_way(
    run: Callable[..., Any], trainer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: set[int] = set()
    original = SideBySide.map

    def watched(self: SideBySide, function: Callable[[str], Any], names: Any, together: bool = True) -> list[Any]:
        def call(name: str) -> Any:
            met.add(threading.get_ident())
            return function(name)

        return original(self, call, names, together and alongside)

    monkeypatch.setattr(SideBySide, "map", watched)
    found = []
    for alongside in (True, False):
        met.clear()
        found.append(weights(run(trainer, out=f"{alongside}")))
        assert (threading.get_ident() in met) is not alongside
    assert_same_bits(*found)


class Pair(nn.Module):
    """A classifier with two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.positive, self.negative = nn.Linear(48, 3), nn.Linear(48, 3)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        flat = images.flatten(1)
        return self.positive(flat), self.negative(flat)
