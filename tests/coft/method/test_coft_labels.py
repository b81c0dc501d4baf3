"""CoFT's Phase II: whose labels a peer is trained on, and how they weigh; what it predicts with."""

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
    OtherB,
    ToyBackbone,
    ToyImages,
    begun,
    load,
    make_coft,
    saved,
    train,
    weights,
)

FIRST = 2  # epoch of Phase II


@pytest.mark.parametrize("filter", FILTERS)
def test_each_peer_learns_what_the_filter_makes_of_both_predictions(filter: str) -> None:
    method = make_coft({"filter": filter})
    begun(method, FIRST)
    predictions, given, sources = method.observer.labels[0]
    for name, partner in PARTNER.items():
        expected = FILTERS[filter](predictions[name], predictions[partner])
        assert sources[name] == (name if filter == "own" else partner) and given[name] is method.labels[name]
        assert given[name].label is predictions[sources[name]].label
        assert torch.equal(given[name].label, expected.label) and torch.equal(given[name].weight, expected.weight)
        assert given[name].index.tolist() == list(range(COUNT))


@pytest.mark.usefixtures("labelled_each_epoch")
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("classify", SCORES)
def test_labels_are_chosen_by_the_positive_vectors_whatever_predicts(classify: str) -> None:
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


def test_all_images_are_labelled_every_few_epochs_by_the_same_views() -> None:
    method = make_coft({"label_views": 3})
    train(method)
    asked = method.engine.images.asked
    keys = [key for views, key, count in asked if views == 3 and count == COUNT]
    assert keys == [(1, "labels", 0)] * 3  # first seeds, and two labellings
    assert not [key for views, key, count in asked if views == 3 and count < COUNT]
    others = [(key, count) for views, key, count in asked if views == 1]
    seeds = method.observer.filtered[0]
    filtered = [((1, "labels", 0), len(seeds[name].index)) for _ in range(2) for name in PEERS]
    assert others[: len(filtered)] == filtered  # the partner's word on seeds
    assert others[len(filtered) :]  # and on the labels in the end
    plain = make_coft({"label_views": 1})
    train(plain)
    assert {views for views, _, _ in plain.engine.images.asked} == {1}


@pytest.mark.usefixtures("labelled_each_epoch")
def test_two_models_on_their_own_know_nothing_of_each_other_once_seeds_are_shared() -> None:
    """Where neither weighs the other's seeds."""

    alone: dict[str, Any] = {"filter": own_labels, "seed_filter": lambda seeds, clean: seeds}
    for options, expected in ((alone, {"peer_b"}), ({}, {"peer_a", "peer_b"})):
        trained = []
        for kind in (ToyBackbone, OtherB):
            method = make_coft({"filter": "own"}, backbone=kind(ToyImages()), **options)
            train(method)
            trained.append(weights(method))
        before, after = trained
        assert {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} == expected


def test_a_filter_that_keeps_nothing_is_an_error() -> None:
    def nothing(peer: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, torch.zeros(COUNT))

    with pytest.raises(UserError, match="gives every label weight 0"):
        begun(make_coft(filter=nothing), FIRST)


# -------------------------------------------------------------------- prediction


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_phase_two_is_averaged_with_phase_one_by_its_share(share: float) -> None:
    for fits in (True, False):
        method = make_coft(
            {"negative": "fitted" if fits else "prompt", "phase2": replace(PHASES["phase2"], wise=share)}
        )
        train(method)
        for name, peer in method.peers.items():
            start, end, tested = peer.prompted(), peer.teacher(), method.inference_models()[name]
            both = zip(start.encoder.parameters(), end.encoder.parameters(), tested.encoder.parameters(), strict=True)
            triples = [*both]
            for head in ("positive", "negative"):
                first, last, mean = (getattr(classifier, head) for classifier in (start, end, tested))
                first, last = F.normalize(first, dim=-1), F.normalize(last, dim=-1)
                mean = mean if share < 1 else F.normalize(mean, dim=-1)
                averaged = head == "positive" or not fits
                triples.append((first, last, mean) if averaged else (last, last, F.normalize(mean, dim=-1)))
            for first, last, mean in triples:
                torch.testing.assert_close(mean, (1 - share) * first + share * last)


@pytest.mark.parametrize("classify", SCORES)
@pytest.mark.parametrize("until", [1, 5])
def test_a_prediction_is_the_mean_of_the_peers_probabilities_of_the_score_that_classify_names(
    classify: str, until: int
) -> None:
    method = make_coft({"classify": classify})
    train(method, until)
    images = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    reported = method.engine.predict_each(images)
    assert list(reported) == list(PEERS) and method.ensemble_size == 2
    pixels, finished = method.engine.images.pixels, until == method.epochs
    pool = list(range(COUNT))
    for name, classifier in method.inference_models().items():
        with torch.no_grad():
            logits, odds = classifier(images)
            of_pool = classifier(pixels)
        if finished:
            logits, odds = (
                x / naive.temperature_of(method, y, pool) for x, y in zip((logits, odds), of_pool, strict=True)
            )
        scores = {"both-prompts": (logits + odds) / 2, "positive": logits}
        torch.testing.assert_close(reported[name], scores.pop(classify).softmax(dim=1))
        assert not any(torch.allclose(reported[name], other.softmax(dim=1)) for other in scores.values())
        assert not reported[name].requires_grad
    both = method.engine.predict(images).exp()
    torch.testing.assert_close(both, sum(reported.values()) / 2)


def test_what_is_tested_is_made_again_when_weights_have_changed() -> None:
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
    load(other, saved(method))
    assert torch.equal(other.engine.predict(images), after)
