"""CoFT+: rounds, contrast and descriptions; without them it equals CoFT to the bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.labelling.neighbours import NeighbourGraph
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.method.coft_plus import FILTERED_OUT, PREDICTION_DESCRIPTION_SHARE, SEED_DESCRIPTION_SHARE, Contrast
from coft.method.coft_settings import Phase2
from coft.method.contrastive import DIM, QUEUE, TEMPERATURE
from coft.method.filters import FILTERS
from coft.method.peer import Peer
from tests.coft import naive, toys
from tests.coft.toys import (
    CLASSES,
    COUNT,
    PARTNER,
    PEERS,
    PHASES,
    ToyImages,
    assert_resumes,
    assert_same_bits,
    begin_at,
    make_coft,
    make_plus,
    train,
    weights,
    whole_batch,
)

OFF: dict[str, Any] = {"rounds": 1, "contrast": Contrast(weight=0.0)}


def describe(share: float) -> Tensor:
    """Text features of the toy backbone with a share of random descriptions."""
    plain = toys.ToyBackbone(ToyImages()).zero_shot_text()
    random = torch.randn(CLASSES, toys.DIM, generator=torch.Generator().manual_seed(3))
    return F.normalize(torch.lerp(plain, F.normalize(random, dim=-1), share), dim=-1)


@pytest.mark.parametrize("settings", [{}, {"filter": "own", "clean_rule": "sigmoid"}, {"negative": "prompt"}])
def test_without_its_parts_it_equals_coft(settings: dict[str, Any]) -> None:
    plain, plus = make_coft(settings), make_plus(settings | OFF)
    losses = [train(method) for method in (plain, plus)]
    assert losses[0] == losses[1]
    assert_same_bits(weights(plain), weights(plus))
    assert torch.equal(*(method.engine.predict(method.engine.images.pixels) for method in (plain, plus)))


def test_a_round_starts_anew_with_labels_of_the_round_before(monkeypatch: pytest.MonkeyPatch) -> None:
    spread, epochs = NeighbourGraph.spread, list[int]()
    monkeypatch.setattr(NeighbourGraph, "spread", lambda self, x: epochs.append(method.epoch) or spread(self, x))
    length = PHASES["phase1"].epochs
    coft, method = make_coft(), make_plus(OFF | {"rounds": 2})
    first = train(coft, length)
    assert train(method, length) == first  # the first round is CoFT's
    start = {name: copy.deepcopy(peer.state_dict()) for name, peer in method.peers.items()}
    engine = method.engine
    batches = engine.begin_epoch(length)
    predictions, _, _ = method.observer.labels[0]
    for name, partner in PARTNER.items():
        expected = FILTERS["min-p-clean"](predictions[name], predictions[partner])
        labels = method.labels[name]
        assert len(labels.index) and set(labels.index[labels.weight < 1].tolist()) <= set(
            torch.nonzero(expected.keep).flatten().tolist()
        )
        assert torch.equal(labels.label, predictions[partner].label[labels.index]) and bool(labels.keep.all())
        fresh = Peer(*method.parts_of(name, 1), **method.peer_options).state_dict()
        assert_same_bits(method.peers[name].state_dict(), fresh)
        assert any(not torch.equal(fresh[key], value) for key, value in start[name].items())
        (group,) = engine.optimizers[name].param_groups
        assert group["lr"] == group["initial_lr"] and not engine.optimizers[name].optimizer.state
    assert len(batches) == method.steps(1)
    train(method, start=length)
    assert method.epochs == 2 * length + PHASES["phase2"].epochs and method.phase(2 * length - 1) == 1
    assert set(epochs) == {0, length} and len(method.observer.chosen) == 1  # not at the start of Phase II


def test_a_run_resumed_after_any_epoch_ends_in_the_same_bits() -> None:
    """Within both rounds of Phase I, at the start of the second and of Phase II, and with a queue of keys."""
    settings = {"phase2": Phase2(epochs=2, lr=1e-3)}
    assert [make_plus(settings).phase(epoch) for epoch in range(6)] == [1] * 4 + [2] * 2
    assert_resumes(lambda: make_plus(settings, describe=describe))


# -------------------------------------------------------------------- contrast


@pytest.mark.parametrize(("queue", "expected"), [(QUEUE, 15), (16, 15), (7, 7)])
def test_the_queue_holds_at_most_half_of_the_images(queue: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coft.method.coft_plus.QUEUE", queue)
    peers: Any = make_plus().peers
    for peer in peers.values():
        peer.enter_phase2()
        for i in range(COUNT):
            peer.queue.push(torch.ones(1, DIM), torch.tensor([i]))
        assert len(peer.queue.filled()[0]) == expected


@pytest.mark.parametrize(("period", "batch_size"), [(3, 4), (2, 4), (5, 8), (COUNT + 1, 4)])
def test_batches_have_filtered_out_images_in_proportion(period: int, batch_size: int) -> None:
    def keep_some(peer: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, torch.arange(1, COUNT + 1) % period != 0)

    method = make_plus({"rounds": 1}, images=ToyImages(batch_size=batch_size), filter=keep_some)
    batches = begin_at(method, PHASES["phase1"].epochs)
    filtered_out = [i for i in range(COUNT) if (i + 1) % period == 0]
    kept = COUNT - len(filtered_out)
    assert len(batches) == method.steps(2)
    for batch in batches:
        for name in PEERS:
            size = min(batch_size, kept)
            index = batch[name].index.tolist()
            assert not set(index[:size]) & set(filtered_out) and set(index[size:]) <= set(filtered_out)
            assert len(index) == size + min(size, batch_size * len(filtered_out) // kept)
            assert batch[name].views.shape[:2] == (len(index), 2)
    for epoch in (0, 1):  # Phase I has none
        plain = begin_at(make_plus({"rounds": 1}, images=ToyImages(batch_size=batch_size), filter=keep_some), epoch)[0][
            "peer_a"
        ]
        assert plain.views.dim() == 4
    names = [stream.name for stream in method.streams()["peer_a"]]
    assert names == ["peer_a", "peer_a" + FILTERED_OUT]


def test_contrast_equals_a_naive_loop_and_queues_keys_of_the_second_views() -> None:
    def keep_some(peer: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, (torch.arange(COUNT) % 3 > 0).float() * 0.8)

    method: Any = make_plus({"rounds": 1, "contrast": Contrast(weight=0.5)}, filter=keep_some)
    queued: dict[str, list[tuple[int, Tensor]]] = {name: [] for name in PEERS}
    for batch in begin_at(method, PHASES["phase1"].epochs)[:3]:
        for name, peer in method.peers.items():
            part, labels = whole_batch(method, name, batch), method.labels[name]
            anchors, keys = anchors_and_keys(peer, part.views)
            index = part.labels.index.tolist()
            losses = method.loss(name, part)
            expected = [
                naive_contrast(i, z, key, queued[name], labels)
                for i, z, key in zip(index, anchors, keys, strict=True)
            ]  # fmt: skip
            mean = torch.stack(expected).mean()
            torch.testing.assert_close(losses["contrast"].mean, mean, rtol=1e-4, atol=1e-5)
            assert losses["contrast"].coefficient == 0.5
            kept = [i for i, weight in enumerate(part.labels.weight) if weight]
            logits, label = peer.learner()(part.views[:, 0])[0], method.relabelled(name, part).label
            each = [0.8 * F.cross_entropy(logits[i], label[i]) for i in kept]
            torch.testing.assert_close(losses["loss"].mean, sum(each) / (0.8 * len(kept)))
            queued[name] = (queued[name] + list(zip(index, keys, strict=True)))[-(COUNT // 2) :]
        method.engine.step(batch)
        for name, peer in method.peers.items():
            keys, images = peer.queue.filled()
            assert sorted(images.tolist()) == sorted(i for i, _ in queued[name])
            torch.testing.assert_close(keys.sum(0), torch.stack([key for _, key in queued[name]]).sum(0))


def anchors_and_keys(peer: Any, views: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors of the first views under the student, and keys of the second views under the teacher."""
    student, teacher = peer.student.model, peer.teacher()
    hidden = torch.relu(student.features(views[:, 0]) @ student.projection.hidden.t())
    return F.normalize(hidden @ student.projection.out.t(), dim=-1), teacher.project(teacher.features(views[:, 1]))


def naive_contrast(
    image: int, anchor: Tensor, own_key: Tensor, queued: list[tuple[int, Tensor]], labels: PseudoLabels
) -> Tensor:
    """The contrastive loss of one image, key by key."""
    positive, negative = [anchor @ own_key / TEMPERATURE], []
    for other, key in queued:
        same, clean = labels.label[other] == labels.label[image], labels.keep[other] and labels.keep[image]
        if same and clean and other != image:
            positive.append(anchor @ key / TEMPERATURE)
        if not same:
            negative.append(anchor @ key / TEMPERATURE)
    total = torch.stack(positive + negative).exp().sum().log()
    return torch.stack([total - score for score in positive]).mean()


# -------------------------------------------------------------------- descriptions


@pytest.mark.usefixtures("no_propagation")
def test_descriptions_are_mixed_into_seeds_and_predictions() -> None:
    shares: list[float] = []
    method = make_plus(OFF, describe=lambda share: shares.append(share) or describe(share))
    assert torch.equal(method.zero_shot_text(), describe(SEED_DESCRIPTION_SHARE)) and set(shares) == {
        SEED_DESCRIPTION_SHARE
    }
    plain = make_plus(OFF)
    assert torch.equal(plain.zero_shot_text(), plain.engine.clip.zero_shot_text())
    method.engine.begin()
    expected = naive.without_prior(naive.zero_shot(method), method.settings.prior_tau)
    assert torch.equal(method.observer.chosen[0][1], expected.argmax(dim=1))
    images = method.engine.images.pixels
    train(method, start=1)
    reported = method.engine.predict_each(images)
    for name, model in method.inference_models().items():
        with torch.no_grad():
            features = model.features(images)
            mixed = (1 - PREDICTION_DESCRIPTION_SHARE) * F.normalize(
                model.positive, dim=-1
            ) + PREDICTION_DESCRIPTION_SHARE * describe(1.0)
            logits = 6 * features @ F.normalize(mixed, dim=-1).t()
            plain_logits, odds = model.classify(features)  # temperatures are fitted to vectors without descriptions
        labels = method.observer.labels[-1][0][PARTNER[name]].label.tolist()
        logits = logits / naive.temperature_of(method, plain_logits, list(range(len(images))), labels)
        odds = naive.calibrated(method, odds, labels)
        torch.testing.assert_close(reported[name], ((logits + odds) / 2).softmax(dim=1), rtol=1e-4, atol=1e-5)
