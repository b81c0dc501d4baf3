"""UPL's ensemble of prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.runtime.errors import UserError
from tests.trainers.conftest import assert_same_bits, weights


def test_the_first_of_an_ensemble_is_the_one_that_trains_alone(run: Callable[..., Any]) -> None:
    alone = weights(run("UPL", out="alone"))
    ensemble = weights(run("UPL", out="ensemble", TRAINER__UPL__ENSEMBLE=3))
    assert list(ensemble) == ["prompt_learner.ctx", "prompt_learner_2.ctx", "prompt_learner_3.ctx"]
    assert_same_bits(alone, {"prompt_learner.ctx": ensemble["prompt_learner.ctx"]})
    assert not torch.equal(ensemble["prompt_learner.ctx"], ensemble["prompt_learner_2.ctx"])


def test_members_see_different_batches(run: Callable[..., Any]) -> None:
    trainer = run("UPL", train=False, TRAINER__UPL__ENSEMBLE=2)
    trainer.before_epoch()
    batch = next(iter(trainer.train_loader_x))
    first, second = trainer.examples(batch).values()
    assert not torch.equal(first[1], second[1]) and not torch.equal(first[0], second[0])
    for part, (_, label) in zip(batch.values(), (first, second), strict=True):
        known = dict(zip(trainer.seeds.ranks.tolist(), trainer.seeds.labels.tolist(), strict=True))
        assert label.tolist() == [known[rank] for rank in part["rank"].tolist()]


def test_probabilities_are_averaged(run: Callable[..., Any]) -> None:
    trainer = run("UPL", TRAINER__UPL__ENSEMBLE=2)
    image = torch.randn(4, 3, 32, 32)
    guesses = [trainer.logits(image, name).softmax(dim=1).detach() for name in trainer.learners]
    for i, row in enumerate(trainer.model_inference(image)):
        for c, value in enumerate(row):
            assert float(value.exp()) == pytest.approx(sum(float(p[i, c]) for p in guesses) / 2, abs=1e-6)


def test_one_model_predicts_its_own_logits(run: Callable[..., Any]) -> None:
    trainer, image = run("UPL", train=False), torch.randn(4, 3, 32, 32)
    assert torch.equal(trainer.model_inference(image), trainer.logits(image).detach())


def test_the_summary_tells_ensemble_and_labels(run: Callable[..., Any]) -> None:
    for name, settings, expected in (
        ("UPL", {"TRAINER__UPL__ENSEMBLE": 2}, (2, 0)),
        ("CoOp", {}, (1, 6)),
        ("ZeroshotCLIP", {}, (1, 0)),
    ):
        trainer = run(name, out=name, **settings)
        summary = json.loads((Path(trainer.output_dir) / "summary.json").read_text())
        assert (summary["ensemble"], summary["labels_used"]) == expected


def test_an_ensemble_of_nothing_is_refused(run: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"TRAINER.UPL.ENSEMBLE is 0; expected at least 1"):
        run("UPL", TRAINER__UPL__ENSEMBLE=0)
