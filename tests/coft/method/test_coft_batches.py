"""CoFT's Phase II: labels that are renewed in each batch, and the loss of a step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from tests.coft.naive import softmax
from tests.coft.toys import CLASSES, COUNT, PARTNER, PEERS, PHASES, begin_at, make_coft, make_plus, train, whole_batch

FIRST = 2  # epoch of Phase II


def moved(settings: dict[str, Any] | None = None, **options: Any) -> tuple[Any, Any]:
    """A method whose encoders have moved since the last labelling, and the next batch."""
    method: Any = make_coft({"phase2": replace(PHASES["phase2"], lr=0.05, ema=0.1)} | (settings or {}), **options)
    train(method, FIRST)
    batches = list(method.engine.begin_epoch(FIRST))
    for batch in batches[:-1]:
        method.engine.step(batch)
    return method, batches[-1]


def new_labels(method: Any, source: str, weak: Tensor) -> list[int]:
    """Labels of weak views by a peer's EMA, from text and image prototypes."""
    model, labeller = method.peers[source].teacher(), method.batch_labellers[source]
    with torch.no_grad():
        features = F.normalize(model.encoder(weak), dim=-1)
        text = model.scale * features @ F.normalize(model.positive, dim=-1).t() - labeller.offset
        image = model.scale * features @ labeller.prototypes.t()
    both = [[a + b for a, b in zip(softmax(t), softmax(i), strict=True)]
            for t, i in zip(text.tolist(), image.tolist(), strict=True)]  # fmt: skip
    return [row.index(max(row)) for row in both]


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_the_loss_equals_a_naive_loop(tau: float) -> None:
    method, batch = moved({"prior_tau": tau})
    for name in PEERS:
        part = whole_batch(method, name, batch)
        model = method.peers[name].learner()
        features = F.normalize(model.encoder(part.views[:, 0]), dim=-1)
        rows = (model.scale * features @ F.normalize(model.positive, dim=-1).t()).softmax(dim=1).tolist()
        weight, new = part.labels.weight.tolist(), new_labels(method, PARTNER[name], part.views[:, 1])
        total = sum(-w * math.log(row[y]) for row, w, y in zip(rows, weight, new, strict=True))
        losses = method.loss(name, part)
        assert losses["loss"].mean.item() == pytest.approx(total / max(1.0, sum(weight)), rel=1e-4)
        mean = [sum(row[c] for row in rows) / len(rows) for c in range(CLASSES)]
        expected = {"unfair": -sum(map(math.log, mean)) / CLASSES} if tau else {}
        assert {key: term.mean.item() for key, term in losses.items() if key != "loss"} == pytest.approx(expected)
        assert all(losses[key].coefficient == 2 * tau for key in expected)
        two = part.labels.at(slice(0, 2))  # fewer images than classes
        two = replace(part, views=part.views[:2], labels=two, whole=two)
        assert all(method.loss(name, two)[key].coefficient == 2 * tau * 2 / CLASSES for key in expected)


@pytest.mark.parametrize("filter", ["min-p-clean", "own"])
def test_the_peer_that_made_the_labels_renews_them(filter: str) -> None:
    method, batch = moved({"filter": filter})
    changed = 0
    for name in PEERS:
        part = whole_batch(method, name, batch)
        source = name if filter == "own" else PARTNER[name]
        labels = method.relabelled(name, part)
        assert labels.label.tolist() == new_labels(method, source, part.views[:, 1])
        assert torch.equal(labels.weight, part.labels.weight) and torch.equal(labels.index, part.labels.index)
        changed += int((labels.label != part.labels.label).sum())
    assert changed


def test_a_label_that_the_filter_changed_stays() -> None:
    def shifted(peer: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool((partner.label + torch.arange(COUNT) % 2) % CLASSES)

    method, batch = moved(filter=shifted)
    for name in PEERS:
        part = whole_batch(method, name, batch)
        label = method.relabelled(name, part).label
        odd = part.labels.index % 2 == 1
        renewed = torch.tensor(new_labels(method, PARTNER[name], part.views[:, 1]))
        assert torch.equal(label[odd], part.labels.label[odd]) and torch.equal(label[~odd], renewed[~odd])


def test_the_labeller_is_that_of_the_last_labelling() -> None:
    method: Any = make_coft({"label_views": 1})
    begin_at(method, FIRST)
    predictions, *_ = method.observer.labels[0]
    with torch.no_grad():
        for name, model in method.teachers().items():
            features = F.normalize(model.encoder(method.engine.images.pixels), dim=-1)
            logits = model.scale * features @ F.normalize(model.positive, dim=-1).t()
            labeller, label = method.batch_labellers[name], predictions[name].label
            assert torch.equal(labeller.label, label)
            torch.testing.assert_close(labeller.offset, 0.5 * logits.softmax(dim=1).mean(dim=0).log())
            for c in label.unique().tolist():
                mean = F.normalize(features[label == c].mean(dim=0), dim=0)
                torch.testing.assert_close(labeller.prototypes[c], mean)


@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_steps_of_both_peers_use_the_teachers_from_before_the_step(make: Any) -> None:
    """So the order in which peers step does not matter."""
    method: Any = make()
    train(method, method.phase1_epochs)
    averages: list[list[Tensor]] = []
    loss = method.loss

    def record(name: str, batch: Any) -> Any:
        averages.append([p.clone() for peer in method.peers.values() for p in peer.teacher().parameters()])
        return loss(name, batch)

    method.loss = record
    for batch in list(method.engine.begin_epoch(method.phase1_epochs))[:3]:
        method.engine.step(batch)
        before, after = averages[-2:]
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert any(not torch.equal(*pair) for pair in zip(averages[0], averages[-1], strict=True))
