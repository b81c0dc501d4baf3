"""Runs of several processes equal that of one in weights and labels, also after a resume."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from coft.core.world import SINGLE_PROCESS, World
from coft.engine.runtime import Runtime
from coft.engine.session import device_of
from coft.labelling.pseudo_labels import PseudoLabels
from coft.method.coft_plus import Contrast
from coft.method.coft_settings import Phase2
from coft.rivals import deft
from coft.rivals.deft import DeFT, DeFTSettings
from coft.rivals.self_training import SelfTraining, SelfTrainingSettings
from tests.coft.toys import (
    PHASES,
    ToyBackbone,
    ToyImages,
    checkpoint_of,
    load,
    make_coft,
    make_method,
    make_plus,
    train,
    weights,
)
from tests.worlds import double_precision, in_world

RELATIVE = 1e-6
SIZES = {
    "odd": {"count": 29},
    "smaller than a batch": {"count": 11, "batch_size": 12},
    "fewer than ranks": {"batch_size": 3},
}
Make = Callable[..., Any]


def plus(**options: Any) -> Any:
    """CoFT+ with a filter that leaves images out, so that parts of batches differ in size."""

    def two_thirds(peer: Any, partner: Any) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, torch.arange(len(partner.label)) % 3 > 0)

    slow = Phase2(epochs=3, lr=1e-4)  # Adam makes large steps out of rounding errors
    return make_plus({"contrast": Contrast(0.5), "phase2": slow}, filter=two_thirds, **options)


METHODS: dict[str, Make] = {
    "CoFT": make_coft,
    "CoFT+": plus,
    "DeFT": partial(make_method, DeFT, DeFTSettings(**PHASES)),
    "self-training": partial(make_method, SelfTraining, SelfTrainingSettings(epochs=3, lr=1e-3, refresh=1)),
}


def build(method: str, world: World, **sizes: Any) -> Any:
    images = ToyImages(world=world, **sizes)
    return METHODS[method](images=images, backbone=ToyBackbone(images), runtime=Runtime(1, world=world))


def outcome_of(method: Any) -> dict[str, Any]:
    """Weights and labels of a trained method."""
    return {"weights": weights(method), "labels": {name: each.state_dict() for name, each in method.labels.items()}}


def whole(method: str, sizes: dict[str, int], world: World) -> dict[str, Any]:
    """Train a method; returns its losses, weights and labels."""
    built = build(method, world, **sizes)
    return {"losses": train(built), **outcome_of(built)}


def assert_same(actual: dict[str, Any], expected: dict[str, Any], relative: float = RELATIVE) -> None:
    assert actual["weights"].keys() == expected["weights"].keys()
    for key, value in expected["weights"].items():
        difference, norm = (actual["weights"][key] - value).double().norm(), value.double().norm()
        assert difference <= relative * norm.clamp_min(0.1), (key, float(difference), float(norm))
    for name, labels in expected["labels"].items():
        for key, values in labels.items():
            torch.testing.assert_close(actual["labels"][name][key], values, rtol=0, atol=1e-6)


@pytest.fixture(autouse=True)
def _filter_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_several_processes_equal_one(method: str, sizes: str, count: int, tmp_path: Path) -> None:
    run = partial(whole, method, SIZES[sizes])
    expected = run(SINGLE_PROCESS)
    first, *others = in_world(count, run, tmp_path / "world")
    assert_same(first, expected)
    for actual_losses, expected_losses in zip(first["losses"], expected["losses"], strict=True):
        assert [pytest.approx(step, rel=1e-4, abs=1e-6) for step in expected_losses] == actual_losses
    for other in others:
        assert all(torch.equal(value, first["weights"][key]) for key, value in other["weights"].items())


@pytest.mark.parametrize("method", ["CoFT", "CoFT+"])
def test_a_run_of_two_processes_resumes_with_one_and_four(method: str, tmp_path: Path) -> None:
    def train_first_part(world: World) -> bytes:
        built = build(method, world, count=29)
        train(built, 2)
        return checkpoint_of(built)

    def resume_from(checkpoint: bytes, world: World) -> dict[str, Any]:
        built = build(method, world, count=29)
        load(built, checkpoint)
        train(built, start=2)
        return outcome_of(built)

    expected = whole(method, {"count": 29}, SINGLE_PROCESS)
    checkpoint = in_world(2, train_first_part, tmp_path / "two")[0]
    assert_same(resume_from(checkpoint, SINGLE_PROCESS), expected)
    assert_same(in_world(4, partial(resume_from, checkpoint), tmp_path / "four")[0], expected)


def test_weights_in_float64_differ_by_1e_12_at_most(tmp_path: Path) -> None:
    """In fp32, keys of CoFT+'s queue differ by 8e-6 at a learning rate of 1e-3."""

    def run(world: World) -> dict[str, Any]:
        images = ToyImages(world=world, count=29)
        settings = {"contrast": Contrast(0.5), "phase2": Phase2(epochs=3, lr=1e-3)}
        backbone = ToyBackbone(images, dtype=torch.float64)
        method = make_plus(settings, images=images, backbone=backbone, runtime=Runtime(1, world=world))
        train(method)
        return outcome_of(method)

    with double_precision():
        expected, actual = run(SINGLE_PROCESS), in_world(2, run, tmp_path / "two")[0]
    assert expected["weights"]["peer_a.student.model.encoder.1.weight"].dtype is torch.float64
    assert_same(actual, expected, relative=1e-12)


def test_a_gpu_is_named_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = SimpleNamespace(USE_CUDA=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert device_of(cfg) == torch.device("cuda:1")
    cfg.USE_CUDA = False
    assert device_of(cfg) == torch.device("cpu")
