"""CoFT's Phase II: labels and weights that a peer is trained on, and the prediction of a trained method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from coft.core.errors import UserError
from coft.labelling.classifier import SCORES
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.method.filters import FILTERS, own_labels
from tests.coft import naive
from tests.coft.toys import (
    COUNT,
    PARTNER,
    PEERS,
    PHASES,
    OtherSecondPeer,
    ToyBackbone,
    ToyImages,
    begin_at,
    checkpoint_of,
    load,
    make_coft,
    train,
    weights,
)

FIRST = 2  # epoch of Phase II


@pytest.mark.parametrize("filter", FILTERS)
def test_each_peer_learns_the_labels_of_the_filter(filter: str) -> None:
    method = make_coft({"filter": filter})
    begin_at(method, FIRST)
    predictions, labels, sources = method.observer.labels[0]
    for name, partner in PARTNER.items():
        expected = FILTERS[filter](predictions[name], predictions[partner])
        assert sources[name] == (name if filter == "own" else partner) and labels[name] is method.labels[name]
        assert labels[name].label is predictions[sources[name]].label
        assert torch.equal(labels[name].label, expected.label) and torch.equal(labels[name].weight, expected.weight)
        assert labels[name].index.tolist() == list(range(COUNT))


@pytest.mark.usefixtures("label_each_epoch")
@pytest.mark.usefixtures("no_propagation")
@pytest.mark.parametrize("classify", SCORES)
def test_labels_are_predicted_by_the_positive_vectors_only(classify: str) -> None:
    method = make_coft({"classify": classify}, backbone=ToyBackbone(ToyImages()))
    train(method)
    assert len(method.observer.labels) == 3
    differ = []
    for predictions, *_ in method.observer.labels:
        for prediction in predictions.values():
            plus, odds = prediction.probability.all().double().log(), prediction.clean.all().double().log()
            positive, joint = (score.argmax(1) for score in (plus, (plus + odds) / 2))
            assert torch.equal(prediction.label, positive)
            differ.append(not torch.equal(joint, positive))
    assert any(differ)


@pytest.mark.usefixtures("label_each_epoch")
def test_without_filters_peers_are_independent_of_each_other() -> None:
    independent: dict[str, Any] = {"filter": own_labels, "seed_filter": lambda seeds, clean: seeds}
    for options, expected in ((independent, {"peer_b"}), ({}, {"peer_a", "peer_b"})):
        trained = []
        for kind in (ToyBackbone, OtherSecondPeer):
            method = make_coft({"filter": "own"}, backbone=kind(ToyImages()), **options)
            train(method)
            trained.append(weights(method))
        before, after = trained
        assert {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} == expected


def test_a_filter_that_keeps_no_label_is_an_error() -> None:
    def nothing(peer: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, torch.zeros(COUNT))

    with pytest.raises(UserError, match="gives every label weight 0"):
        begin_at(make_coft(filter=nothing), FIRST)


# -------------------------------------------------------------------- prediction


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_weights_of_both_phases_are_averaged(share: float) -> None:
    for fitted in (True, False):
        method = make_coft(
            {"negative": "fitted" if fitted else "prompt", "phase2": replace(PHASES["phase2"], wise=share)}
        )
        train(method)
        for name, peer in method.peers.items():
            start, end, final = peer.prompted(), peer.teacher(), method.inference_models()[name]
            both = zip(start.encoder.parameters(), end.encoder.parameters(), final.encoder.parameters(), strict=True)
            triples = [*both]
            for head in ("positive", "negative"):
                first, last, mean = (getattr(classifier, head) for classifier in (start, end, final))
                first, last = F.normalize(first, dim=-1), F.normalize(last, dim=-1)
                mean = mean if share < 1 else F.normalize(mean, dim=-1)
                averaged = head == "positive" or not fitted
                triples.append((first, last, mean) if averaged else (last, last, F.normalize(mean, dim=-1)))
            for first, last, mean in triples:
                torch.testing.assert_close(mean, (1 - share) * first + share * last)


@pytest.mark.parametrize("classify", SCORES)
@pytest.mark.parametrize("until", [1, 5])
def test_the_prediction_is_the_mean_of_the_peers_probabilities(classify: str, until: int) -> None:
    method = make_coft({"classify": classify})
    train(method, until)
    images = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    reported = method.engine.predict_each(images)
    assert list(reported) == list(PEERS) and method.ensemble_size == 2
    pixels, finished = method.engine.images.pixels, until == method.epochs
    pool, pool_means = list(range(COUNT)), []
    for name, classifier in method.inference_models().items():
        with torch.no_grad():
            logits, odds = classifier(images)
            pool_scores = classifier(pixels)
        if finished:
            labels = method.observer.labels[-1][0][PARTNER[name]].label.tolist()
            temperatures = [naive.temperature_of(method, each, pool, labels) for each in pool_scores]
            logits, odds = (x / t for x, t in zip((logits, odds), temperatures, strict=True))
            of_pool = [x / t for x, t in zip(pool_scores, temperatures, strict=True)]
            pool_means.append((sum(of_pool) / 2 if classify == "both-prompts" else of_pool[0]).softmax(dim=1))
        scores = {"both-prompts": (logits + odds) / 2, "positive": logits}
        torch.testing.assert_close(reported[name], scores.pop(classify).softmax(dim=1))
        assert not any(torch.allclose(reported[name], other.softmax(dim=1)) for other in scores.values())
        assert not reported[name].requires_grad
    both, temperature = sum(reported.values()) / 2, 1.0
    if finished:
        mean = sum(pool_means) / 2
        temperature = naive.temperature_of(method, mean.log(), pool, mean.argmax(dim=1).tolist())
        assert abs(temperature - 1) > 1e-3
    torch.testing.assert_close(method.engine.predict(images).softmax(dim=1), (both.log() / temperature).softmax(dim=1))


def test_predictions_follow_changed_weights() -> None:
    method, images = make_coft(), torch.randn(4, 3, 4, 4)
    engine = method.engine
    train(method, 1)
    first = engine.predict(images)
    assert torch.equal(engine.predict(images), first)
    for batch in engine.begin_epoch(1):
        engine.step(batch)
    during, scores = engine.predict(images), [model(images) for model in method.inference_models().values()]
    expected = sum(((logits + odds) / 2).softmax(dim=1) for logits, odds in scores) / 2
    torch.testing.assert_close(during.exp(), expected.detach())
    engine.end_epoch()
    after = engine.predict(images)
    assert not torch.equal(first, during) and torch.equal(during, after)
    other = make_coft()
    other.engine.predict(images)
    load(other, checkpoint_of(method))
    assert torch.equal(other.engine.predict(images), after)
