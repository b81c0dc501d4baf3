"""A rival that runs on several processes comes to what it comes to on one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.core.world import SINGLE_PROCESS, World
from coft.engine.runtime import Runtime
from coft.rivals.norm_adaptation import NormAdaptation, NormAdaptationSettings
from coft.rivals.training_free import TrainingFree, TrainingFreeSettings
from tests.coft.rivals.making import make_clip_backbone, make_coop, make_cpl, make_grip, make_tuning, make_upl
from tests.coft.toys import ToyImages, on_toys, train, weights
from tests.worlds import in_world

PROMPTS = {"CoOp": make_coop, "UPL": make_upl, "GRIP": make_grip, "CPL": make_cpl}
OTHERS = ("Supervised", "LaFTer", "NormAdaptation", "TrainingFree")  # MUST and DPA use means over parts of a batch


def build(rival: str, world: World) -> Any:
    runtime = Runtime(1, world=world)
    if rival in PROMPTS:
        return PROMPTS[rival](make_clip_backbone(), runtime=runtime, n_ctx=4)
    if rival == "NormAdaptation":
        images = ToyImages(size=32, world=world)
        settings = NormAdaptationSettings()
        return on_toys(NormAdaptation, settings, images=images, backbone=make_clip_backbone(vit=False), runtime=runtime)
    if rival == "TrainingFree":
        return on_toys(TrainingFree, TrainingFreeSettings("transclip"), images=ToyImages(world=world), runtime=runtime)
    return make_tuning(rival, ToyImages(29, world=world), runtime=runtime)


def whole(rival: str, world: World) -> tuple[Any, ...]:
    """A run: its losses, its weights, and what it predicts."""
    method = build(rival, world)
    losses = train(method)
    return losses, weights(method), method.engine.predict(method.engine.images.pixels)


@pytest.mark.parametrize("rival", [*PROMPTS, *OTHERS])
def test_two_processes_make_what_one_makes(rival: str, tmp_path: Path) -> None:
    losses, wanted, predicted = whole(rival, SINGLE_PROCESS)
    for ours, end, predictions in in_world(2, partial(whole, rival), tmp_path / "world"):
        assert [[pytest.approx(step, rel=1e-3, abs=1e-5) for step in epoch] for epoch in ours] == losses
        assert end.keys() == wanted.keys()
        for key, value in wanted.items():
            torch.testing.assert_close(end[key], value, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(predictions, predicted, rtol=1e-3, atol=1e-4)
