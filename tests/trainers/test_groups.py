from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.trainers.conftest import weights
from trainers.parts import grouping
from trainers.parts.grouping import fit_groups, listen_to_groups
from trainers.parts.unlabeled import plain_batches


@pytest.mark.parametrize("most", [1000, 7])
def test_a_classifier_listens_to_groups_among_the_first_images(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(grouping, "MOST", most)
    trainer = run("CoFT", train=False, TRAINER__COFT__GROUPS=True)
    teachers = {name: teacher.eval() for name, teacher in trainer.teachers().items()}
    args = (trainer.pool, trainer.cfg, trainer.device)
    grouped = listen_to_groups(teachers, *args, trainer.own)
    told = trainer.classify_all()
    for name, teacher in teachers.items():
        images = torch.cat([batch["all"]["view"] for batch in plain_batches(trainer.pool, trainer.cfg)])
        with torch.no_grad():
            features = teacher.features(images)
            logits, log_odds = teacher.classify(features)
        scores = (logits + log_odds)[:most] / 2
        scores = scores - 0.5 * scores.double().softmax(dim=1).mean(dim=0).log().float()
        groups = fit_groups(features[:most], scores).scores(features)
        expected = (logits + groups) / 2, (log_odds + groups) / 2
        for got, also, wanted in zip(told[name], grouped[name](images), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(also, wanted, rtol=1e-3, atol=1e-3)


def test_groups_label_in_phase_two_and_judge_no_seeds(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    original = grouping.fit_groups

    def watched(features: torch.Tensor, scores: torch.Tensor) -> grouping.Groups:
        asked.append((trainer.phase, trainer.epoch))
        return original(features, scores)

    monkeypatch.setattr(grouping, "fit_groups", watched)
    trainer = run("CoFT", train=False, TRAINER__COFT__GROUPS=True)
    trainer.train()
    assert asked == [(2, 2)] * 2 + [(2, 4)] * 2  # two epochs of Phase I; labels every other epoch, of both peers
    plain, grouped = weights(run("CoFT", out="plain")), weights(trainer)
    assert any(not torch.equal(plain[key], grouped[key]) for key in plain)
