"""A filter, a rule for seeds, a light module and a rival: each is one function or class, and runs without a trainer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.parallel import Parallel
from coft.labelling.losses import adjusted_cross_entropy, weighted_cross_entropy
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.method import coft
from coft.method.labeller import Labeller
from coft.method.optimizers import light_optimizer
from coft.method.peer import Classifier
from coft.method.protocol import Batch, Method, Observer, Runtime
from tests.coft.method.test_coft_seeds import naive_quotas
from tests.coft.method.toys import (
    CLASSES,
    COUNT,
    PARTNER,
    PEERS,
    ToyBackbone,
    ToyImages,
    assert_same_bits,
    load,
    make_coft,
    make_plus,
    pairs,
    saved,
    train,
    weights,
)


def what_reaches_the_loss(
    method: Any, monkeypatch: pytest.MonkeyPatch, until: int, start: int = 0
) -> dict[str, dict[int, tuple[int, float]]]:
    """Label and weight of every image that each peer is trained on in some epochs."""
    found: dict[str, dict[int, tuple[int, float]]] = {name: {} for name in PEERS}
    given: list[tuple[list[int], list[float]]] = []
    plain, losses = adjusted_cross_entropy, method.label_losses

    def loss(logits: Tensor, labels: PseudoLabels, log_frequency: Tensor, batch: PseudoLabels | None) -> Tensor:
        given.append((labels.label.tolist(), labels.weight.tolist()))
        return plain(logits, labels, log_frequency)

    def label_losses(name: str, learner: Any, features: Tensor, part: Any) -> Any:
        result = losses(name, learner, features, part)
        for i, y, w in zip(part["index"].tolist(), *given[-1], strict=True):
            assert found[name].setdefault(i, (y, w)) == (y, w)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(coft, "adjusted_cross_entropy", loss)
        patch.setattr(method, "label_losses", label_losses)
        train(method, until, start)
    return found


@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_a_filter_of_one_s_own(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels on which both peers agree, by the lower confidence; at even places alone."""
    given: list[PseudoLabels] = []

    def agreeing(own: Predictions, partner: Predictions) -> PseudoLabels:
        weight = torch.minimum(own.confidence, partner.confidence)
        weight = weight * (own.label == partner.label) * (torch.arange(COUNT) % 2 == 0)
        given.append(PseudoLabels.of_pool(partner.label, weight))
        return given[-1]

    method = make(filter=agreeing)
    start = method.phase1_epochs
    train(method, start)
    assert not given
    found = what_reaches_the_loss(method, monkeypatch, start + 2, start)
    assert len(given) == 2  # one labelling in two epochs, of each peer
    for labels, name in zip(given, PEERS, strict=True):
        expected = list(zip(labels.label.tolist(), labels.weight.tolist(), strict=True))
        assert 2 < len(found[name]) == int((labels.weight > 0).sum()) <= COUNT / 2
        assert all(expected[i] == reported for i, reported in found[name].items())
        assert pairs(method.peers[name].labels) == pairs(labels)


def test_a_rule_for_seeds_of_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of each class in the order in which they are."""
    asked: list[tuple[tuple[int, ...], Any]] = []

    def first_of_each(logits: Tensor, per_class: int | Tensor) -> PseudoLabels:
        asked.append((tuple(logits.shape), torch.as_tensor(per_class).tolist()))
        label = logits.argmax(dim=1)
        chosen = torch.cat([torch.nonzero(label == c).flatten()[:3] for c in range(CLASSES)])
        return PseudoLabels.certain(chosen, label[chosen])

    method = make_coft(choose_seeds=first_of_each)
    found = what_reaches_the_loss(method, monkeypatch, 1)
    seeds, logits, _ = method.observer.chosen[0]
    assert asked == [((COUNT, CLASSES), naive_quotas(logits, 4))]
    label = logits.argmax(dim=1).tolist()
    expected = [[i for i in range(COUNT) if label[i] == c][:3] for c in range(CLASSES)]
    for n, name in enumerate(PEERS):
        assert found[name] == {i: (c, 1.0) for c, members in enumerate(expected) for i in members[n::2]}
    assert pairs(seeds) == [(i, c) for c, members in enumerate(expected) for i in members]
    train(method, start=1)
    assert not asked[1:]  # Phase II has no seeds


def test_a_filter_of_seeds_of_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds count by halves, and where the partner's d is not the highest for their label, not at all."""
    asked: list[tuple[PseudoLabels, Tensor, bool]] = []

    def halves(seeds: PseudoLabels, log_odds: Tensor, ready: bool) -> PseudoLabels:
        asked.append((seeds, log_odds, ready))
        weight = 0.5 * (log_odds.argmax(dim=1) == seeds.label).float()
        return PseudoLabels(seeds.index, seeds.label, weight)

    monkeypatch.setattr("coft.method.coft.WARMUP_STEPS", 0)
    method = make_coft({"seeds_per_class": 5, "seeds_share": 1.0}, seed_filter=halves)
    found = what_reaches_the_loss(method, monkeypatch, 1)
    assert [ready for *_, ready in asked] == [auc > 0.9 for auc in method.observer.filtered[0][1]]
    for (seeds, log_odds, _), (name, partner) in zip(asked, PARTNER.items(), strict=True):
        assert pairs(seeds) == pairs(method.peers[name].seeds)
        likeliest = log_odds.argmax(dim=1).tolist()
        expected = {i: (y, 0.5 * (y == c)) for (i, y), c in zip(pairs(seeds), likeliest, strict=True)}
        assert found[name] == expected
        fresh = make_coft({"seeds_per_class": 5, "seeds_share": 1.0}).peers[partner].prompted()
        with torch.no_grad():
            torch.testing.assert_close(log_odds, fresh(method.images.pixels[seeds.index])[1])


class Scaled(nn.Module):
    """A light module: features are scaled, each by a number that is learned."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual, self.by = visual, nn.Parameter(torch.ones(visual[-1].out_features))  # type: ignore[index]

    def forward(self, images: Tensor) -> Tensor:
        return self.visual(images) * self.by


def test_a_light_module_of_one_s_own() -> None:
    images = ToyImages()
    backbone = ToyBackbone(images, light=lambda visual, source: Scaled(visual))
    before = copy.deepcopy(backbone.visual.state_dict())
    method = make_coft({"visual": "scaled"}, images=images, backbone=backbone)
    assert backbone.lights == ["scaled", "scaled"]
    train(method, 2)
    for name, peer in method.peers.items():
        assert not torch.equal(peer.encoder.by, torch.ones(8))
        assert {key for key in weights(method) if key.startswith(f"{name}.encoder")} == {f"{name}.encoder.by"}
    whole = saved(method)
    train(method, start=2)
    assert all(torch.equal(before[key], value) for key, value in backbone.visual.state_dict().items())
    for peer in method.peers.values():
        assert not torch.equal(peer.student.encoder.by, peer.encoder.by)
        assert not torch.equal(peer.student.encoder.visual[1].weight, backbone.visual[1].weight)
    again = ToyBackbone(images, light=lambda visual, source: Scaled(visual))
    resumed = make_coft({"visual": "scaled"}, images=images, backbone=again)
    load(resumed, whole)
    train(resumed, start=2)
    assert_same_bits(weights(method), weights(resumed))


class LinearProbe(Method):
    """A rival in a test: a linear classifier on frozen features, trained on zero-shot labels."""

    def __init__(self, images: Any, backbone: Any, runtime: Runtime) -> None:
        super().__init__()
        self.images, self.backbone, self.runtime, self.epochs = images, backbone, runtime, 3
        text = backbone.zero_shot_text()
        self.model = Classifier(backbone.visual, nn.Parameter(text.clone()), text.clone(), backbone.scale)
        self.models = {"probe": self.model}
        self.optimizers = {"probe": light_optimizer([self.model.positive])}
        self.labeller = Labeller(images, runtime, Parallel(1, backbone.visual, runtime.device.type))

    def begin(self) -> None:
        logits, _ = self.labeller.score({"probe": self.model})["probe"]
        self.labels = PseudoLabels.of_pool(logits.argmax(dim=1))

    def begin_epoch(self, epoch: int) -> Sequence[Batch]:
        index = {"probe": self.labels.index}
        return self.images.batches("weak", index, self.images.steps(len(self.images)), self.runtime.seed, epoch)

    def step(self, batch: Any) -> dict[str, float]:
        part = batch["probe"]
        labels = self.labels.of(part["index"])
        loss = weighted_cross_entropy(self.model(part["view"])[0], labels.label, labels.weight)
        self.runtime.descend(loss, self.optimizers["probe"], "probe")
        return {"loss": loss.item()}

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        return self.model(images)[0]


def test_a_rival_of_one_s_own() -> None:
    images = ToyImages()
    backbone = ToyBackbone(images)
    probe = LinearProbe(images, backbone, Runtime(1))
    zero_shot = backbone.scale * F.normalize(backbone.visual(images.pixels), dim=-1) @ backbone.zero_shot_text().t()
    torch.testing.assert_close(probe.predict(images.pixels), zero_shot)
    losses = train(probe)
    assert torch.equal(probe.labels.label, zero_shot.argmax(dim=1))
    assert [len(steps) for steps in losses] == [8, 8, 8]
    first, last = (sum(step["loss"] for step in losses[epoch]) for epoch in (0, -1))
    assert last < first
    again = LinearProbe(images, backbone, Runtime(1))
    load(again, saved(probe))
    assert torch.equal(again.predict(images.pixels), probe.predict(images.pixels))
    assert (probe.phase(0), probe.ensemble_size, probe.predict_each(images.pixels)) == (1, 1, {})


def test_an_observer_changes_no_bit() -> None:
    watched, alone = make_coft(), make_coft(observer=Observer())
    train(watched), train(alone)
    assert_same_bits(weights(watched), weights(alone))
    assert len(watched.observer.filtered) == 2 and len(watched.observer.labels) == 2
