"""CoFT that is told a part of the truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.backbones.prompts import ensemble_features
from coft.method.labelling import image_features
from coft.method.seeds import correct_prior_
from coft.runtime.errors import UserError
from tests.trainers.conftest import SHORT, assert_same_bits, weights
from trainers.oracle import CoFTOracle

KEYS = {key.replace("COFT__", "COFTORACLE__"): value for key, value in SHORT["CoFT"].items()}


@pytest.fixture
def oracle(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setitem(SHORT, "CoFTOracle", KEYS)
    return lambda knows, **more: run("CoFTOracle", out=knows, TRAINER__COFTORACLE__KNOWS=knows, **more)


def true_labels(trainer: Any) -> list[int]:
    by_path = {item.impath: item.label for item in trainer.dm.dataset.train_x}
    return [by_path[path] for path in trainer.pool.paths]


def test_an_oracle_that_tells_nothing_leaves_coft_as_it_is(run: Callable[..., Any], oracle: Callable[..., Any]) -> None:
    told = oracle("nothing")
    assert_same_bits(weights(run("CoFT", out="coft")), weights(told))
    assert told.labels_used == 0 and not told.label_free


def test_the_filter_keeps_what_is_right_in_both_phases(
    oracle: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = CoFTOracle.filter_seeds

    def watched(self: CoFTOracle) -> Any:
        seen.append(original(self))
        return seen[-1]

    monkeypatch.setattr(CoFTOracle, "filter_seeds", watched)
    # The random CLIP's zero-shot labels are wrong so consistently that vectors fitted to them would label none right.
    trainer = oracle("filter", TRAINER__COFTORACLE__CLASSIFY="positive")
    truth = true_labels(trainer)
    assert len(seen) == 2
    for targets in (target for both in seen for target in both.values()):
        for rank, label, keep, dual in zip(
            *(x.tolist() for x in (targets.ranks, targets.labels, targets.weight, targets.dual_labels)), strict=True
        ):
            assert keep == (truth[rank] == label) and (dual == label or not keep)
        right = [
            label
            for rank, label in zip(targets.ranks.tolist(), targets.labels.tolist(), strict=True)
            if truth[rank] == label
        ]
        frequencies = torch.tensor([(1 + right.count(c)) / (3 + len(right)) for c in range(3)])
        torch.testing.assert_close(targets.adjustment, frequencies.log())
    for peer in trainer.peers.values():
        assert peer.lesson.keep.tolist() == [a == b for a, b in zip(peer.lesson.labels.tolist(), truth, strict=True)]
        assert 0 < peer.lesson.keep.sum() < 60


def test_seeds_are_the_likeliest_images_of_each_true_class(oracle: Callable[..., Any]) -> None:
    trainer = oracle("seeds", train=False)
    trainer.before_train()
    truth = true_labels(trainer)
    text = ensemble_features(trainer.clip_model, trainer.classnames, trainer.templates)
    args = (trainer.clip_model, trainer.pool, trainer.cfg, trainer.device)
    features = image_features(*args, trainer.own.LABEL_VIEWS, trainer.view_key)
    logits = correct_prior_(float(trainer.clip_model.logit_scale.exp()) * features @ text.t(), trainer.own.PRIOR_TAU)
    odds = torch.special.logit(logits.double().softmax(dim=1))
    for c in range(3):
        members = sorted((i for i in range(60) if truth[i] == c), key=lambda i: -float(odds[i, c]))[:6]
        given = [peer.seeds.ranks[peer.seeds.labels == c].tolist() for peer in trainer.peers.values()]
        assert given == [members[0::2], members[1::2]]


def test_phase_two_is_taught_all_true_labels(oracle: Callable[..., Any]) -> None:
    trainer = oracle("labels")
    for peer in trainer.peers.values():
        assert peer.lesson.labels.tolist() == true_labels(trainer) and bool(peer.lesson.keep.all())
    summary = json.loads((Path(trainer.output_dir) / "summary.json").read_text())
    assert summary["labels_used"] == 60 and "unlabeled" not in summary


def test_an_oracle_of_another_kind_is_refused(oracle: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"TRAINER\.COFTORACLE\.KNOWS is 'label'; did you mean 'labels'\?"):
        oracle("label", train=False)
