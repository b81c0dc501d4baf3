"""CoFT's training: views, losses, trained weights, learning rates, EMA and phases; resumed runs give the same bits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.method.coft_settings import Phase2
from tests.coft import naive
from tests.coft.toys import (
    CLASSES,
    PEERS,
    PHASES,
    ToyImages,
    assert_resumes,
    begin_at,
    make_coft,
    make_plus,
    train,
    weights,
    whole_batch,
)

ALL_SEEDS = {"seeds_per_class": 5}


def test_phases_have_their_epochs_steps_and_losses() -> None:
    method = make_coft()
    assert method.epochs == 5 and [method.phase(epoch) for epoch in range(6)] == [1, 1, 2, 2, 2, 2]
    losses = train(method)
    assert [len(steps) for steps in losses] == [2, 2, 8, 8, 8]
    assert [set(steps[0]) for steps in losses] == 2 * [{"loss_a", "loss_b", "dual_a", "dual_b"}] + 3 * [
        {"loss_a", "loss_b", "unfair_a", "unfair_b"}
    ]
    assert [peer.phase for peer in method.peers.values()] == [2, 2]
    engine = method.engine
    assert list(method.models) == list(engine.optimizers) == list(engine.schedulers) == list(PEERS)


@pytest.mark.parametrize("epoch", [0, 2, 4])
def test_phase_one_uses_weak_views_and_phase_two_strong_and_weak_ones(epoch: int) -> None:
    method = make_coft()
    keys = [(1, 0, n) for n in range(8)] if epoch == 0 else [(1, epoch, n) for n in range(32)]
    for batch in begin_at(method, epoch):
        for name in PEERS:
            views = batch[name].views.unsqueeze(1) if epoch == 0 else batch[name].views
            for i, images in zip(batch[name].index.tolist(), views, strict=True):
                for image, kind in zip(images, ("weak",) if epoch == 0 else ("strong", "weak"), strict=True):
                    expected = (method.engine.images.noisy(i, kind, *key) for key in keys)
                    assert any(torch.equal(image, view) for view in expected), (name, kind)


@pytest.mark.usefixtures("no_seed_limit")
def test_losses_of_phase_one_equal_a_naive_loop() -> None:
    """With logits, frequencies and complements written out."""
    method = make_coft(ALL_SEEDS)
    batch = begin_at(method, 1)[0]
    for name in PEERS:
        losses, model = method.loss(name, whole_batch(method, name, batch)), method.peers[name].learner()
        features = F.normalize(model.encoder(batch[name].views), dim=-1)
        positive, negative = F.normalize(model.positive, dim=-1), F.normalize(model.negative, dim=-1)
        labels = method.labels[name]
        position = [labels.index.tolist().index(i) for i in batch[name].index.tolist()]
        label, weight = labels.label[position], labels.weight[position]
        counts = [1 + sum(float(w) for y, w in zip(labels.label, labels.weight, strict=True) if y == c)
                  for c in range(CLASSES)]  # fmt: skip
        logits = model.scale * features @ positive.t() + torch.tensor([math.log(x / sum(counts)) for x in counts])
        each_loss = [w * F.cross_entropy(x[None], y[None]) for x, y, w in zip(logits, label, weight, strict=True)]
        assert losses["loss"].coefficient == 1
        expected = sum(each_loss) / max(1.0, float(weight.sum()))
        torch.testing.assert_close(losses["loss"].mean, expected, atol=1e-5, rtol=1e-4)
        assert set(losses) == {"loss", "dual"}
        odds = model.scale * features @ (positive - negative).t()
        expected = sum(naive.dual_loss(d, y) for d, y in zip(odds.tolist(), label.tolist(), strict=True)) / len(label)
        assert losses["dual"].mean.item() == pytest.approx(expected, rel=1e-4)


def test_the_dual_loss_trains_the_image_encoder() -> None:
    method = make_coft()
    part = whole_batch(method, "peer_a", begin_at(method)[0])
    method.loss("peer_a", part)["dual"].mean.backward()
    peer: Any = method.peers["peer_a"]
    has_gradient = [p.grad is not None and bool(p.grad.any()) for p in peer.encoder.parameters() if p.requires_grad]
    assert any(has_gradient) and bool(peer.negative_residual.grad.any())
    assert bool(peer.prompts.negative.grad.any())
    assert peer.prompts.positive.grad is None or not peer.prompts.positive.grad.any()


def test_the_weights_that_train_in_each_phase() -> None:
    method = make_coft({"negative": "fitted"})
    start = weights(method)
    train(method, 2)
    phase1 = weights(method)
    changed = {key for key in start if not torch.equal(start[key], phase1[key])}
    trained = {"encoder.1.bias", "encoder.3.bias", "negative_residual", "prompts.positive", "prompts.negative"}
    assert changed == {f"{name}.{key}" for name in PEERS for key in trained} == set(start)
    visual = method.engine.clip.visual
    assert all(torch.equal(peer.encoder[1].weight, visual[1].weight) for peer in method.peers.values())
    train(method, start=2)
    end = weights(method)
    assert all(torch.equal(phase1[key], end[key]) for key in phase1)
    for name, peer in method.peers.items():
        students = dict(peer.student.model.encoder.named_parameters())
        assert all(not torch.equal(value, peer.encoder.get_parameter(key)) for key, value in students.items())
        assert not torch.equal(peer.student.model.positive, peer.text_features()[0]), name


def test_every_step_updates_the_ema_and_the_learning_rates() -> None:
    method = make_coft({"phase2": replace(PHASES["phase2"], ema=0.1, lr=1e-2)})
    batches, name = begin_at(method, 2), "peer_a"
    student: Any = method.peers[name].student
    vectors = dict(student.model.named_parameters())
    average = {key: value.detach().clone() for key, value in vectors.items()}
    steps = len(batches) * method.settings.phase2.epochs
    for n, batch in enumerate(batches):
        for group, factor in zip(method.engine.optimizers[name].param_groups, (1, 10), strict=True):
            assert group["lr"] == pytest.approx(factor * 0.005 * (1 + math.cos(math.pi * n / steps)))
        method.engine.step(batch)
        decay = min(0.1, (1 + n) / (10 + n)) if n else 0.0  # the first update copies the weights
        average = {key: decay * value + (1 - decay) * vectors[key].detach() for key, value in average.items()}
    assert n > 0
    for key, value in dict(student.teacher.named_parameters()).items():
        torch.testing.assert_close(value, average[key])


def test_the_optimizer_of_phase_one_can_be_replaced_and_follows_a_cosine() -> None:
    parameters_of_peers: list[list[Any]] = []

    def make(parameters: Any) -> Any:
        parameters_of_peers.append(list(parameters))
        return torch.optim.Adam(parameters_of_peers[-1], lr=0.02)

    method = make_coft(make_light=make)
    for peer, parameters in zip(method.peers.values(), parameters_of_peers, strict=True):
        assert [id(p) for p in parameters] == [id(p) for p in peer.parameters() if p.requires_grad]
    steps = begin_at(method)
    for n, batch in enumerate(steps):
        rate = method.engine.optimizers["peer_b"].param_groups[0]["lr"]
        assert rate == pytest.approx(0.01 * (1 + math.cos(math.pi * n / (2 * len(steps)))))
        method.engine.step(batch)
    assert type(make_coft().engine.optimizers["peer_a"].optimizer) is torch.optim.SGD


def test_training_learns_given_labels() -> None:
    """The peers learn to predict labels that zero-shot CLIP never predicts."""
    images = ToyImages()
    labels = (images.truth + 1) % 3

    def fixed_labels(peer: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(labels)

    def accuracy() -> Tensor:
        return (method.engine.predict(images.pixels).argmax(dim=1) == labels).float().mean()

    phase2 = Phase2(15, lr=5e-3, ema=0.9, wise=1.0)
    method = make_coft({"phase2": phase2, "classify": "positive"}, images=images, filter=fixed_labels)
    train(method, 2)
    assert accuracy() < 0.2
    train(method, start=2)
    assert accuracy() > 0.9


@pytest.mark.usefixtures("no_seed_limit")
@pytest.mark.parametrize("filter", ["min-p-clean", "own"])
def test_a_run_resumed_after_any_epoch_ends_in_the_same_bits(filter: str) -> None:
    assert_resumes(lambda: make_coft({"filter": filter} | ALL_SEEDS))


def test_relabelling_is_due_in_every_second_epoch_of_phase_2_and_before_later_rounds() -> None:
    method = make_coft()
    assert [method.is_due(epoch) for epoch in range(method.epochs)] == [False, False, True, False, True]
    plus = make_plus()
    assert [plus.is_due(epoch) for epoch in range(plus.epochs)] == [False, False, True, False, True, False, True]
