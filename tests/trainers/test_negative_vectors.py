from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coft.images.unlabeled import plain_batches
from coft.method.labelling import opinion, pool_features
from coft.method.negative_head import fit_negative
from coft.method.parallel import SideBySide
from trainers.parts import judging

PEERS = ("peer_a", "peer_b")


@pytest.mark.parametrize("classify", ["joint", "clean", "positive"])
def test_a_peer_s_probabilities_are_of_the_scores_that_classify_names(run: Callable[..., Any], classify: str) -> None:
    trainer = run("CoFT", TRAINER__COFT__CLASSIFY=classify)
    image = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    told = trainer.peer_probabilities(image)
    for name, classifier in trainer.deploy().items():
        with torch.no_grad():
            logits, d = classifier(image)
        scores = {"joint": (logits + d) / 2, "clean": d, "positive": logits}
        torch.testing.assert_close(told[name], scores[classify].softmax(dim=1))
        others = [s.softmax(dim=1) for key, s in scores.items() if key != classify]
        assert not any(torch.allclose(told[name], other) for other in others)


@torch.no_grad()
def test_phase_two_labels_by_its_own_rule_after_its_first_labels(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: dict[int, list[Tensor]] = {}
    wanted: dict[int, list[Tensor]] = {}

    def recorded(trainer: Any, logits: Tensor, d: Tensor, *rules: Any) -> Any:
        first = trainer.epoch == trainer.phase1_epochs
        plus, odds = (x - 0.5 * x.softmax(dim=1).mean(dim=0).log() for x in (logits, d))
        wanted.setdefault(trainer.epoch, []).append((plus + odds if first else plus).argmax(dim=1))
        told = opinion(logits, d, *rules)
        labels.setdefault(trainer.epoch, []).append(told.labels)
        return told

    trainer = run("CoFT", train=False, TRAINER__COFT__PHASE2__REFRESH=1)
    monkeypatch.setattr(judging, "opinion", partial(recorded, trainer))
    with torch.enable_grad():
        trainer.train()
    assert sorted(labels) == list(range(trainer.phase1_epochs, trainer.max_epoch))
    for epoch, found in labels.items():
        assert all(torch.equal(a, b) for a, b in zip(found, wanted[epoch], strict=True))


def test_negative_vectors_are_fitted_to_the_seeds_before_labels_are_made_and_at_the_ends_of_phases(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[tuple[Tensor, Tensor, Tensor]] = []
    seen: list[Tensor] = []

    def recorded(features: Tensor, labels: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        fits.append((labels, weight, fit_negative(features, labels, weight, *rest)))
        seen.append(features)
        return fits[-1][-1]

    def in_order(_: SideBySide, function: Callable[[str], Any], names: list[str], together: bool = True) -> list[Any]:
        return [function(name) for name in names]

    monkeypatch.setattr(judging, "fit_negative", recorded)
    monkeypatch.setattr(SideBySide, "map", in_order)  # recorded would not know whose thread was first
    trainer = run("CoFT")  # two epochs of Phase I, three of Phase II, labels renewed every other epoch
    assert len(fits) == len(PEERS) * 4
    for i, peer in enumerate(trainer.peers.values()):
        end_of_phase1, *before_labelling, end = fits[i :: len(PEERS)]
        for labels, weight, _ in (end_of_phase1, *before_labelling):
            assert torch.equal(labels, peer.seeds.labels) and bool((weight == 1).all())
        taught = peer.lesson.weight > 0
        assert torch.equal(end[0], peer.lesson.labels[taught])
        sums = [float(peer.lesson.weight[peer.lesson.labels == c].double().sum()) for c in range(3)]
        balanced = [
            w / (1 + sums[y]) for y, w in zip(end[0].tolist(), peer.lesson.weight[taught].tolist(), strict=True)
        ]
        torch.testing.assert_close(end[1] / end[1].sum(), torch.tensor(balanced) / sum(balanced))
        torch.testing.assert_close(peer.text_features()[1], end_of_phase1[-1])
        tested = peer.tested(0.5, ["positive"])
        for classifier in (peer.teacher(), tested, trainer.deploy()[f"peer_{'ab'[i]}"]):
            torch.testing.assert_close(classifier.negative, end[-1])
        ranks = torch.nonzero(taught).flatten()
        alone = {"alone": tested}
        features = pool_features(alone, trainer.pool, trainer.cfg, trainer.device, {"alone": ranks})["alone"]
        assert not features.requires_grad
        torch.testing.assert_close(seen[-len(PEERS) + i], features)
    run("CoFT", out="no dual loss", TRAINER__COFT__LAMBDA_DUAL=0.0)
    without = run("CoFT", out="other", TRAINER__COFT__CLASS_NEGATIVE=False)
    assert len(fits) == len(PEERS) * 4
    for peer in without.peers.values():
        torch.testing.assert_close(peer.student.negative, peer.text_features()[1])


def test_negative_vectors_may_be_fitted_to_the_moving_average_and_averaged(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[Tensor] = []

    def recorded(features: Tensor, labels: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        weights.append(weight)
        return fit_negative(features, labels, weight, *rest)

    monkeypatch.setattr(judging, "fit_negative", recorded)
    trainer = run("CoFT", TRAINER__COFT__PHASE2__FIT_TESTED=False)
    for name, peer in trainer.peers.items():
        taught = peer.lesson.weight[peer.lesson.weight > 0]
        assert any(torch.equal(weight, taught) for weight in weights[-len(PEERS) :])
        a, b = (peer.text_features()[1], peer.teacher().negative)
        torch.testing.assert_close(trainer.deploy()[name].negative, (a + b) / 2)


def test_the_dual_loss_may_train_negative_vectors_in_phase_two(run: Callable[..., Any]) -> None:
    trainer = run("CoFT", TRAINER__COFT__PHASE2__LAMBDA_DUAL=1.0, TRAINER__COFT__CLASS_NEGATIVE=False)
    for name, peer in trainer.peers.items():
        assert not torch.equal(peer.student.negative, peer.text_features()[1])
        trained = torch.nn.functional.normalize(peer.teacher().negative, dim=1)
        torch.testing.assert_close(trainer.deploy()[name].negative, (peer.text_features()[1] + trained) / 2)


def test_each_peer_s_features_are_of_its_own_images_however_many(run: Callable[..., Any]) -> None:
    trainer = run("CoFT", DATALOADER__TEST__BATCH_SIZE=3)
    teachers = {name: peer.teacher().eval() for name, peer in trainer.peers.items()}
    ranks = {PEERS[0]: torch.tensor([5, 0, 7, 2, 11, 3, 1]), PEERS[1]: torch.tensor([4, 9])}
    side_by_side = SideBySide(2, nn.Identity(), "cpu")
    found = pool_features(teachers, trainer.pool, trainer.cfg, trainer.device, ranks, side_by_side)
    for name, which in ranks.items():
        images = torch.cat([b["all"]["view"] for b in plain_batches(trainer.pool, trainer.cfg, which)])
        with torch.no_grad():
            torch.testing.assert_close(found[name], teachers[name].features(images))
        assert len(found[name]) == len(which) and not found[name].requires_grad
