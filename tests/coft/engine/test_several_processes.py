"""A run of several processes is that of one: weights, labels, and what a run that was stopped goes on to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.core.world import SINGLE_PROCESS, World
from coft.engine.runtime import Runtime
from coft.labelling.pseudo_labels import PseudoLabels
from coft.method.coft_plus import Contrast
from coft.method.coft_settings import Phase2
from coft.rivals import deft
from coft.rivals.deft import DeFT, DeFTSettings
from coft.rivals.self_training import SelfTraining, SelfTrainingSettings
from tests.coft.toys import PHASES, ToyBackbone, ToyImages, load, make_coft, make_plus, on_toys, saved, train, weights
from tests.worlds import double_precision, in_world

RELATIVE = 1e-6
SIZES = {
    "odd": {"count": 29},
    "smaller than a batch": {"count": 11, "batch_size": 12},
    "fewer than ranks": {"batch_size": 3},
}
Make = Callable[..., Any]


def plus(**options: Any) -> Any:
    """With images that the filter leaves aside, so that batches have parts of uneven sizes."""

    def some(own: Any, partner: Any) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, torch.arange(len(partner.label)) % 3 > 0)

    slow = Phase2(epochs=3, lr=1e-4)  # Adam makes large steps of what rounding leaves of a gradient
    return make_plus({"contrast": Contrast(0.5), "phase2": slow}, filter=some, **options)


METHODS: dict[str, Make] = {
    "CoFT": make_coft,
    "CoFT+": plus,
    "DeFT": partial(on_toys, DeFT, DeFTSettings(**PHASES)),
    "self-training": partial(on_toys, SelfTraining, SelfTrainingSettings(epochs=3, lr=1e-3, refresh=1)),
}


def build(method: str, world: World, **sizes: Any) -> Any:
    images = ToyImages(world=world, **sizes)
    return METHODS[method](images=images, backbone=ToyBackbone(images), runtime=Runtime(1, world=world))


def described(method: Any) -> dict[str, Any]:
    """What a run has come to."""
    return {"weights": weights(method), "labels": {name: each.state_dict() for name, each in method.labels.items()}}


def whole(method: str, sizes: dict[str, int], world: World) -> dict[str, Any]:
    """A run, and what its steps report."""
    built = build(method, world, **sizes)
    return {"losses": train(built), **described(built)}


def assert_same(reached: dict[str, Any], wanted: dict[str, Any], relative: float = RELATIVE) -> None:
    assert reached["weights"].keys() == wanted["weights"].keys()
    for key, value in wanted["weights"].items():
        apart, norm = (reached["weights"][key] - value).double().norm(), value.double().norm()
        assert apart <= relative * norm.clamp_min(0.1), (key, float(apart), float(norm))  # of sums that are larger
    for name, labels in wanted["labels"].items():
        for key, values in labels.items():
            torch.testing.assert_close(reached["labels"][name][key], values, rtol=0, atol=1e-6)


@pytest.fixture(autouse=True)
def _filters_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deft, "WARMUP_STEPS", 2)
    monkeypatch.setattr(deft, "MIN_AUC", 0.0)


@pytest.mark.parametrize(
    ("method", "sizes", "count"),
    [
        ("CoFT", "odd", 2),
        ("CoFT", "smaller than a batch", 4),
        ("CoFT", "fewer than ranks", 4),
        ("CoFT+", "odd", 2),
        ("DeFT", "odd", 2),
        ("self-training", "odd", 4),
    ],
)
def test_several_processes_make_what_one_makes(method: str, sizes: str, count: int, tmp_path: Path) -> None:
    run = partial(whole, method, SIZES[sizes])
    wanted = run(SINGLE_PROCESS)
    first, *others = in_world(count, run, tmp_path / "world")
    assert_same(first, wanted)
    for ours, theirs in zip(first["losses"], wanted["losses"], strict=True):
        assert [pytest.approx(step, rel=1e-4, abs=1e-6) for step in theirs] == ours
    for other in others:
        assert all(torch.equal(value, first["weights"][key]) for key, value in other["weights"].items())


@pytest.mark.parametrize("method", ["CoFT", "CoFT+"])
def test_a_run_of_two_processes_goes_on_with_one_and_with_four(method: str, tmp_path: Path) -> None:
    def until(world: World) -> bytes:
        built = build(method, world, count=29)
        train(built, 2)
        return saved(built)

    def on_from(checkpoint: bytes, world: World) -> dict[str, Any]:
        built = build(method, world, count=29)
        load(built, checkpoint)
        train(built, start=2)
        return described(built)

    wanted = whole(method, {"count": 29}, SINGLE_PROCESS)
    checkpoint = in_world(2, until, tmp_path / "two")[0]
    assert_same(on_from(checkpoint, SINGLE_PROCESS), wanted)
    assert_same(in_world(4, partial(on_from, checkpoint), tmp_path / "four")[0], wanted)


def test_what_differs_is_rounding(tmp_path: Path) -> None:
    """At a learning rate of 1e-3 keys of CoFT+'s queue differ by 8e-6 in fp32, for Adam makes large steps of it."""

    def run(world: World) -> dict[str, Any]:
        images = ToyImages(world=world, count=29)
        fast = {"contrast": Contrast(0.5), "phase2": Phase2(epochs=3, lr=1e-3)}
        backbone = ToyBackbone(images, dtype=torch.float64)
        method = make_plus(fast, images=images, backbone=backbone, runtime=Runtime(1, world=world))
        train(method)
        return described(method)

    with double_precision():
        wanted, reached = run(SINGLE_PROCESS), in_world(2, run, tmp_path / "two")[0]
    assert wanted["weights"]["peer_a.student.model.encoder.1.weight"].dtype is torch.float64
    assert_same(reached, wanted, relative=1e-12)
