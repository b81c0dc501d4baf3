"""DeFT on zero-shot labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.backbones.prompts import ensemble_features
from coft.images.views import normalize, plain_view
from coft.method.labelling import image_features
from coft.runtime.errors import UserError
from tests.trainers.conftest import assert_same_bits, saved_weights, weights
from trainers.deft import DeFT


@pytest.fixture
def judged(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trained DeFT, with the log-odds (N, C) of each model as it was when Phase II began."""
    teach = DeFT.teach

    def watched(self: DeFT) -> None:
        view = plain_view(self.cfg)
        images = normalize(self.cfg)(torch.stack([view(self.pool.image(rank)) for rank in range(len(self.pool))]))
        with torch.no_grad():
            self.odds = {name: peer.prompted()(images)[1] for name, peer in self.peers.items()}
        self.taught = [*getattr(self, "taught", []), self.epoch]
        teach(self)

    monkeypatch.setattr(DeFT, "teach", watched)
    return run("DeFT")


def test_all_images_have_zero_shot_labels_in_both_models(judged: Any) -> None:
    text = ensemble_features(judged.clip_model, judged.classnames, judged.templates)
    features = image_features(judged.clip_model, judged.pool, judged.cfg, judged.device)
    expected = (features @ text.t()).argmax(dim=1)
    for peer in judged.peers.values():
        assert torch.equal(peer.seeds.ranks, torch.arange(60)) and torch.equal(peer.seeds.labels, expected)


def test_phase_two_is_taught_the_given_labels_that_a_models_own_phase_one_calls_clean(judged: Any) -> None:
    assert judged.taught == [2]  # once, after the two epochs of Phase I
    for name, peer in judged.peers.items():
        labels = peer.seeds.labels
        assert torch.equal(peer.lesson.labels, labels)
        odds = [float(judged.odds[name][i, label]) for i, label in enumerate(labels.tolist())]
        kept = [value > 0 for value in odds]
        for c in range(3):
            members = [i for i, label in enumerate(labels.tolist()) if label == c]
            for i in sorted(members, key=lambda i: -odds[i])[: judged.own.MIN_KEPT]:
                kept[i] = True
        assert peer.lesson.keep.tolist() == kept


def test_a_models_seeds_are_filtered_by_itself(run: Callable[..., Any]) -> None:
    built = run("DeFT", train=False, TRAINER__DEFT__PHASE1__MIN_AUC=0.0)
    built.set_model_mode("eval")
    built.before_train()
    built.epoch, built.numbers = 1, {}
    with torch.no_grad():
        built.peers["peer_a"].prompts.negative.ctx.copy_(torch.randn_like(built.peers["peer_a"].prompts.negative.ctx))
    targets = built.filter_seeds()
    view = plain_view(built.cfg)
    images = normalize(built.cfg)(torch.stack([view(built.pool.image(rank)) for rank in range(len(built.pool))]))
    for name, peer in built.peers.items():
        with torch.no_grad():
            odds = peer.prompted()(images)[1]
        clean = odds.gather(1, peer.seeds.labels[:, None]).squeeze(1) > 0
        assert bool((targets[name].weight | ~clean).all())  # more are kept where a class has too few
        surplus = targets[name].weight & ~clean
        assert int(surplus.sum()) <= 3 * built.own.MIN_KEPT


def test_phase_two_starts_from_pre_trained_weights(judged: Any) -> None:
    folder = Path(judged.output_dir)
    saved = saved_weights(folder, "peer_a", 2)
    assert not any(key.startswith("student.") for key in saved)
    student = judged.peers["peer_a"].make_student()
    for key, value in judged.clip_model.visual.state_dict().items():
        assert torch.equal(student.encoder.state_dict()[key], value)


def test_models_do_not_learn_from_each_other(run: Callable[..., Any]) -> None:
    """Another start of the second model changes no bit of the first."""
    one = weights(run("DeFT", out="one"))
    built = run("DeFT", train=False, out="two")
    with torch.no_grad():
        built.peers["peer_b"].prompts.positive.ctx.add_(0.05)
    built.train()
    two = weights(built)
    first = [key for key in one if key.startswith("peer_a.")]
    assert_same_bits({key: one[key] for key in first}, {key: two[key] for key in first})
    assert any(not torch.equal(one[key], two[key]) for key in one if key.startswith("peer_b."))


def test_the_summary_tells_ensemble_and_labels(judged: Any) -> None:
    summary = json.loads((Path(judged.output_dir) / "summary.json").read_text())
    assert (summary["ensemble"], summary["labels_used"]) == (2, 0)


def test_negative_vectors_of_each_class_s_own_are_refused(run: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"TRAINER\.DEFT\.CLASS_NEGATIVE is True"):
        run("DeFT", train=False, TRAINER__DEFT__CLASS_NEGATIVE=True)
