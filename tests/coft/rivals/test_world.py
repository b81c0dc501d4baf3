"""Rivals on several processes equal those on one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.core.world import SINGLE_PROCESS, World
from coft.engine.runtime import Runtime
from coft.rivals.training_free import TrainingFree, TrainingFreeSettings
from tests.coft.rivals.making import make_clip_backbone, make_coop, make_cpl, make_grip, make_tuning, make_upl
from tests.coft.toys import ToyImages, make_method, train, weights
from tests.worlds import in_world

PROMPTS = {"CoOp": make_coop, "UPL": make_upl, "GRIP": make_grip, "CPL": make_cpl}
OTHERS = ("Supervised", "LaFTer", "TrainingFree")
OF_PARTS = ("MUST", "DPA")  # the loss has means over the part of a batch that a process has


def build(rival: str, world: World) -> Any:
    runtime = Runtime(1, world=world)
    if rival in PROMPTS:
        return PROMPTS[rival](make_clip_backbone(), runtime=runtime, n_ctx=4)
    if rival == "TrainingFree":
        return make_method(
            TrainingFree, TrainingFreeSettings("transclip"), images=ToyImages(world=world), runtime=runtime
        )
    return make_tuning(rival, ToyImages(29, world=world), runtime=runtime)


def whole(rival: str, world: World) -> tuple[Any, ...]:
    """Train a rival; returns losses, weights and predictions."""
    method = build(rival, world)
    losses = train(method)
    return losses, weights(method), method.engine.predict(method.engine.images.pixels)


@pytest.mark.parametrize("rival", [*PROMPTS, *OTHERS])
def test_two_processes_equal_one(rival: str, tmp_path: Path) -> None:
    losses, expected, expected_predictions = whole(rival, SINGLE_PROCESS)
    for actual_losses, end, predictions in in_world(2, partial(whole, rival), tmp_path / "world"):
        assert [[pytest.approx(step, rel=1e-3, abs=1e-5) for step in epoch] for epoch in actual_losses] == losses
        assert end.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(end[key], value, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(predictions, expected_predictions, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rival", OF_PARTS)
def test_two_processes_agree_if_the_loss_has_means_over_parts(rival: str, tmp_path: Path) -> None:
    (_, first, predictions), (_, second, others) = in_world(2, partial(whole, rival), tmp_path / "world")
    assert all(torch.equal(first[key], second[key]) for key in first) and torch.equal(predictions, others)
    assert all(value.isfinite().all() for value in first.values())
