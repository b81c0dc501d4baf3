"""CoFT+: CoFT without its parts, to the bit; rounds, contrast and descriptions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.method.coft_plus import ASIDE, AT_PREDICTION, AT_SEEDS, Contrast
from coft.method.contrastive import DIM, QUEUE, TEMPERATURE
from tests.coft.method import toys
from tests.coft.method.test_coft_seeds import without_prior
from tests.coft.method.toys import (
    CLASSES,
    COUNT,
    PEERS,
    PHASES,
    ToyImages,
    assert_same_bits,
    begun,
    load,
    make_coft,
    make_plus,
    saved,
    train,
    weights,
)

OFF: dict[str, Any] = {"rounds": 1, "contrast": Contrast(weight=0.0)}


def describe(share: float) -> Tensor:
    """Words of the toy with a share of descriptions, drawn at random."""
    plain = toys.ToyBackbone(ToyImages()).zero_shot_text()
    said = F.normalize(torch.randn(CLASSES, toys.DIM, generator=torch.Generator().manual_seed(3)), dim=-1)
    return F.normalize(torch.lerp(plain, said, share), dim=-1)


@pytest.mark.parametrize("settings", [{}, {"filter": "self", "clean_rule": "raw"}, {"class_negative": False}])
def test_without_its_parts_it_is_coft(settings: dict[str, Any]) -> None:
    plain, plus = make_coft(settings), make_plus(settings | OFF)
    losses = [train(method) for method in (plain, plus)]
    assert losses[0] == losses[1]
    assert_same_bits(weights(plain), weights(plus))
    assert torch.equal(*(method.predict(plain.images.pixels) for method in (plain, plus)))


def test_each_round_is_a_phase_two_that_goes_on_from_the_last_one() -> None:
    once, twice = make_coft(), make_plus(OFF | {"rounds": 2})
    first = train(once)
    rates: list[float] = []
    step = twice.step
    twice.step = lambda batch: rates.append(twice.optimizers[PEERS[0]].param_groups[0]["lr"]) or step(batch)  # type: ignore[method-assign]
    losses = train(twice)
    one, start, rate = PHASES["phase2"].epochs, PHASES["phase1"].epochs, PHASES["phase2"].lr
    assert losses[: start + one] == first and len(losses) == start + 2 * one  # the first is CoFT's
    steps = one * once.steps(2)
    half = [rate * (1 + math.cos(math.pi * i / steps)) / 2 for i in range(steps)]
    assert rates[-2 * steps :] == pytest.approx(half * 2)
    assert len(twice.observer.labels) == 2 * math.ceil(one / 2) and len(twice.observer.chosen) == 1


def test_each_part_changes_the_result() -> None:
    none = make_plus(OFF)
    train(none)
    parts: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"rounds": 2}, {}),
        ({"contrast": Contrast(0.5)}, {}),
        ({}, {"describe": describe}),
    ]
    for settings, options in parts:
        method = make_plus(OFF | settings, **options)
        train(method)
        found = weights(method)
        assert any(not torch.equal(value, found[key]) for key, value in weights(none).items()), settings


@pytest.mark.usefixtures("warm_at_once")
def test_a_run_resumed_after_any_epoch_ends_in_the_same_bits() -> None:
    """In Phase I, where Phase II begins, and in both of its rounds with a queue of keys."""
    whole = make_plus(describe=describe)
    assert [whole.phase(epoch) for epoch in range(whole.epochs)] == [1] * 2 + [2] * 6
    whole.begin()
    checkpoints = []
    for epoch in range(whole.epochs):
        for batch in whole.begin_epoch(epoch):
            whole.step(batch)
        whole.end_epoch(epoch)
        checkpoints.append(saved(whole))
    for done, checkpoint in enumerate(checkpoints, start=1):
        resumed = make_plus(describe=describe)
        load(resumed, checkpoint)
        train(resumed, start=done)
        assert_same_bits(weights(whole), weights(resumed))
        assert torch.equal(whole.predict(whole.images.pixels), resumed.predict(whole.images.pixels))


# -------------------------------------------------------------------- contrast


@pytest.mark.parametrize(("queue", "expected"), [(QUEUE, 15), (16, 15), (7, 7)])
def test_the_queue_holds_half_of_the_images_at_most(queue: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coft.method.coft_plus.QUEUE", queue)
    method = make_plus()
    for peer in method.peers.values():
        peer.enter_phase2()
        for i in range(COUNT):
            peer.queue.push(torch.ones(1, DIM), torch.tensor([i]))
        assert len(peer.queue.filled()[0]) == expected


@pytest.mark.parametrize(("left_out", "batch_size"), [(3, 4), (2, 4), (5, 8), (COUNT + 1, 4)])
def test_batches_have_images_that_the_filter_leaves_out_in_proportion(left_out: int, batch_size: int) -> None:
    def some(own: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, torch.arange(1, COUNT + 1) % left_out != 0)

    method = make_plus(images=ToyImages(batch_size=batch_size), filter=some)
    batches = begun(method, PHASES["phase1"].epochs)
    aside = [i for i in range(COUNT) if (i + 1) % left_out == 0]
    kept = COUNT - len(aside)
    assert len(batches) == method.steps(2)
    for batch in batches:
        for name in PEERS:
            assert not set(batch[name]["index"].tolist()) & set(aside)
            assert batch[name]["view"].shape[:2] == (min(batch_size, kept), 2)
            found = batch[name + ASIDE]["index"].tolist() if name + ASIDE in batch else []
            assert len(found) == min(batch_size, kept, batch_size * len(aside) // kept) and set(found) <= set(aside)
    for epoch in (0, 1):  # Phase I knows of none
        assert set(begun(make_plus(filter=some), epoch)[0]) == set(PEERS)


def test_contrast_equals_its_definition_and_queues_keys_of_the_other_views() -> None:
    def some(own: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, (torch.arange(COUNT) % 3 > 0).float() * 0.8)

    method = make_plus({"contrast": Contrast(weight=0.5)}, filter=some)
    batches = begun(method, PHASES["phase1"].epochs)
    for name, peer in method.peers.items():
        student, teacher, labels = peer.student, peer.teacher(), peer.labels
        queued: list[tuple[int, Tensor]] = []
        for batch in batches[:3]:
            parts = [batch[group] for group in (name, name + ASIDE)]
            index = torch.cat([part["index"] for part in parts]).tolist()
            views = torch.cat([part["view"] for part in parts])
            hidden = torch.relu(student.features(views[:, 0]) @ student.projection.hidden.t())
            z = F.normalize(hidden @ student.projection.out.t(), dim=-1)
            own = teacher.project(teacher.features(views[:, 1])).detach()
            expected = []
            for i, anchor in enumerate(index):
                good, bad = [z[i] @ own[i] / TEMPERATURE], []
                for j, key in queued:
                    same, clean = labels.label[j] == labels.label[anchor], labels.keep[j] and labels.keep[anchor]
                    if same and clean and j != anchor:
                        good.append(z[i] @ key / TEMPERATURE)
                    if not same:
                        bad.append(z[i] @ key / TEMPERATURE)
                total = torch.stack(good + bad).exp().sum().log()
                expected.append(sum(total - score for score in good) / len(good))
            weight, loss = method.losses(batch, name)["contrast"]
            torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
            assert weight == 0.5
            queued = (queued + list(zip(index, own, strict=True)))[-(COUNT // 2) :]
            keys, images = peer.queue.filled()
            stored = sorted(zip(images.tolist(), keys.tolist(), strict=True))
            assert [i for i, _ in stored] == sorted(i for i, _ in queued)
            torch.testing.assert_close(peer.queue.keys.sum(0), torch.stack([k for _, k in queued]).sum(0))
        plain = super(type(method), method).losses(
            {name: {"index": parts[0]["index"], "view": parts[0]["view"][:, 0]}}, name
        )
        torch.testing.assert_close(method.losses(batch, name)["loss"][1], plain["loss"][1])


# -------------------------------------------------------------------- descriptions


@pytest.mark.usefixtures("alone")
def test_descriptions_have_a_share_in_seeds_and_predictions() -> None:
    shares: list[float] = []
    method = make_plus(OFF, describe=lambda share: shares.append(share) or describe(share))
    assert torch.equal(method.zero_shot_text(), describe(AT_SEEDS)) and set(shares) == {AT_SEEDS, 1.0}
    plain = make_plus(OFF)
    assert torch.equal(plain.zero_shot_text(), plain.backbone.zero_shot_text())
    method.begin()
    features = method.backbone.image_features(method.images, 2, (1, "labels", 0)).double()
    logits = 6 * features @ describe(AT_SEEDS).double().t()
    logits = without_prior(logits).log_softmax(dim=1)
    torch.testing.assert_close(method.observer.chosen[0][1].double(), logits, atol=1e-4, rtol=1e-4)
    images = method.images.pixels
    train(method, start=1)
    for name, tested in method.prediction_models().items():
        inference = method.inference_models()[name]
        with torch.no_grad():
            (found, odds), features = tested(images), inference.features(images)
            mixed = (1 - AT_PREDICTION) * F.normalize(inference.positive, dim=-1) + AT_PREDICTION * describe(1.0)
            torch.testing.assert_close(found, 6 * features @ F.normalize(mixed, dim=-1).t())
            torch.testing.assert_close(odds, inference.classify(features)[1])  # fitted to the vectors without a share
        probabilities = ((found + odds) / 2).softmax(dim=1)
        torch.testing.assert_close(method.predict_each(images)[name], probabilities)
