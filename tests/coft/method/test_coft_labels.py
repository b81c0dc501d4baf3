"""CoFT's Phase II: whose labels a peer is trained on, how they weigh, and what the negative vectors are fitted to."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.method import negatives
from coft.method.filters import FILTERS, oneself
from coft.method.negative_prompt import fit_negative
from tests.coft.method.test_coft_seeds import softmax, without_prior
from tests.coft.method.toys import (
    CLASSES,
    COUNT,
    PARTNER,
    PEERS,
    PHASES,
    ToyBackbone,
    ToyImages,
    assert_same_bits,
    begun,
    load,
    make_coft,
    pairs,
    saved,
    train,
    weights,
)

EACH_EPOCH = {"phase2": replace(PHASES["phase2"], refresh=1)}
FIRST = 2  # epoch of Phase II


def corrected(method: Any) -> dict[str, list[list[list[float]]]]:
    """Logits and clean log-odds of the models that label, their priors corrected, as lists."""
    scores = method.labeller.score(method.pair.teachers(), method.settings.label_views, method.epoch)
    return {n: [without_prior(x.double()).tolist() for x in scores[n]] for n in PEERS}


@pytest.mark.usefixtures("none_in_any_case", "alone")
@pytest.mark.parametrize("filter", ["both", "both-hard", "peer", "probability", "self", "none"])
@pytest.mark.parametrize("rule", ["coupled", "raw"])
def test_what_every_filter_and_clean_rule_lets_a_peer_learn(filter: str, rule: str) -> None:
    method = make_coft({"filter": filter, "clean_rule": rule})
    begun(method, FIRST)
    found = corrected(method)
    said = {n: without_prior(torch.tensor(found[n][0])).tolist() for n in PEERS}  # of l+, and the prior once more
    labels = {n: [row.index(max(row)) for row in rows] for n, rows in said.items()}

    def clean(name: str, i: int, c: int) -> float:
        if filter == "probability":
            return softmax(found[name][0][i])[c]
        d = found[name][1][i]
        return softmax(d)[c] if rule == "coupled" else 1 / (1 + math.exp(-d[c]))

    for name, partner in PARTNER.items():
        reported, source = method.peers[name].labels, name if filter == "self" else partner
        assert reported.label.tolist() == labels[source]
        assert reported.index.tolist() == list(range(COUNT))
        expected = []
        for i, c in enumerate(labels[source]):
            own, other = clean(name, i, c), clean(partner, i, c)
            both = min(own, other)
            weights = {"both": both, "probability": both, "both-hard": both > 0.5, "peer": other, "self": own}
            expected.append(float(weights.get(filter, 1.0)))
        assert reported.weight.tolist() == pytest.approx(expected, abs=1e-5)
    predictions, given = method.observer.labels[0]
    assert {name: pairs(own) for name, own in given.items()} == {n: pairs(p.labels) for n, p in method.peers.items()}
    sources = {name: name if filter == "self" else partner for name, partner in PARTNER.items()}
    assert all(given[name].label is predictions[source].label for name, source in sources.items())
    assert {name: own.label.tolist() for name, own in predictions.items()} == labels


def test_the_best_labels_of_each_class_count_in_full_in_any_case() -> None:
    method = make_coft()
    begun(method, FIRST)
    predictions, given = method.observer.labels[0]
    for name, partner in PARTNER.items():
        label = predictions[partner].label
        both = sum(predictions[p].p_clean(label) for p in PEERS)
        for c in range(CLASSES):
            members = torch.nonzero(label == c).flatten().tolist()
            best = max(members, key=lambda i: float(both[i]))
            assert given[name].weight[best] == 1


def test_labels_with_a_weight_are_trained_on_and_their_frequencies_added() -> None:
    weight = torch.linspace(-0.2, 1, COUNT).clamp_min(0)

    def some(own: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(torch.arange(COUNT) % 2, weight)

    method = make_coft(filter=some)
    begun(method, FIRST)
    for name in PEERS:
        labels = method.labels[name]
        assert labels.index.tolist() == [i for i in range(COUNT) if weight[i] > 0]
        assert torch.equal(labels.weight, weight[weight > 0])
        sums = [1 + sum(float(w) for i, w in enumerate(weight) if i % 2 == c) for c in (0, 1)] + [1]
        assert method.frequency[name].exp().tolist() == pytest.approx([x / sum(sums) for x in sums])


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("classify", ["joint", "positive"])
def test_labels_are_chosen_by_the_positive_vectors_whatever_predicts(classify: str) -> None:
    method = make_coft({"classify": classify} | EACH_EPOCH, backbone=ToyBackbone(ToyImages()))
    train(method)
    assert len(method.observer.labels) == 3
    differ = []
    for n, (predictions, _) in enumerate(method.observer.labels):
        for own in predictions.values():
            tau = 0.0 if n else 0.5  # the first labels spread, after which the prior is corrected once more
            plus, odds = own.probability.double().log(), own.clean.double().log()
            positive, joint = (without_prior(score, tau).argmax(1) for score in (plus, (plus + odds) / 2))
            assert torch.equal(own.label, positive)
            differ.append(not torch.equal(joint, positive))
    assert any(differ)


@pytest.mark.parametrize("warmup", [0, 4])  # an epoch has two steps
def test_all_images_are_labelled_every_few_epochs_by_views_of_their_own(
    warmup: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coft.method.coft.WARMUP_STEPS", warmup)
    method = make_coft({"label_views": 3})
    train(method)
    keys = {key for views, key, count in method.images.asked if views == 3 and count == COUNT}
    assert keys == {(1, "labels", epoch) for epoch in (0, 2, 4)}  # first seeds, and two labellings
    few = {key for views, key, count in method.images.asked if views == 3 and count < COUNT}
    assert few == {(1, "labels", 1)}  # negative vectors are fitted to the seeds when Phase I ends
    others = [(key, count) for views, key, count in method.images.asked if views == 1]
    of_partner = [len(method.observer.filtered[0][0][name].index) for name in reversed(PEERS)]
    filtered = [((1, "labels", epoch), count) for epoch in (0, 1) for count in of_partner if not warmup]
    assert others[: len(filtered)] == filtered  # the partner's word on seeds, once it is warm
    assert {key for key, _ in others[len(filtered) :]} == {(1, "labels", 4)}  # and to the labels in the end
    plain = make_coft({"label_views": 1})
    train(plain)
    assert {views for views, _, _ in plain.images.asked} == {1}


# -------------------------------------------------------------------- what negative vectors are fitted to


@pytest.mark.parametrize("who", ["both", "self"])
def test_negative_vectors_are_fitted_to_the_partner_s_labels_when_labels_are_made(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make_coft({"filter": who} | EACH_EPOCH)
    fits: list[tuple[Tensor, ...]] = []

    def recorded(features: Tensor, labels: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        fits.append((features, labels, weight, fit_negative(features, labels, weight, *rest, steps=20)))
        return fits[-1][-1]

    monkeypatch.setattr(negatives, "fit_negative", recorded)
    begun(method, method.phase1_epochs)
    predictions, _ = method.observer.labels[-1]
    for (features, labels, weight, negative), (name, partner) in zip(fits[-2:], PARTNER.items(), strict=True):
        source = predictions[name if who == "self" else partner]
        assert torch.equal(labels, source.label)
        for i, y in enumerate(labels.tolist()):
            believed = [float(own.probability[i, y]) for own in (predictions[name], source)]
            assert float(weight[i]) == pytest.approx(min(believed))
        teacher = method.peers[name].teacher()
        torch.testing.assert_close(teacher.negative, negative)
        positive, scale = F.normalize(teacher.positive, dim=-1), teacher.scale
        odds = without_prior(scale * features @ (positive - F.normalize(negative, dim=-1)).t())
        torch.testing.assert_close(predictions[name].clean, odds.softmax(dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("warm_at_once")
def test_two_models_on_their_own_know_nothing_of_each_other_once_seeds_are_shared() -> None:
    """Where neither weighs the other's seeds, nor has a word in what is kept in any case."""

    class OtherB(ToyBackbone):
        def prompts(self, number: int, num_ctx: int, source: torch.Generator) -> Any:
            made: Any = super().prompts(number, num_ctx, source)
            made.positive.data += 0.3 * number
            return made

    alone: dict[str, Any] = {"filter": oneself, "seed_filter": lambda seeds, log_odds, ready: seeds}
    for options, expected in ((alone, {"peer_b"}), ({}, {"peer_a", "peer_b"})):
        found = []
        for kind in (ToyBackbone, OtherB):
            method = make_coft({"filter": "self"} | EACH_EPOCH, backbone=kind(ToyImages()), **options)
            train(method)
            found.append(weights(method))
        before, after = found
        assert {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} == expected


@pytest.mark.parametrize("settings", [{"class_negative": False}, {"lambda_dual": 0.0}])
def test_nothing_is_fitted_where_a_setting_says_so(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    method = make_coft(settings | EACH_EPOCH)
    monkeypatch.setattr(negatives, "fit_negative", partial(pytest.fail, "fitted"))
    train(method)
    for peer in method.peers.values():
        torch.testing.assert_close(peer.student.negative, peer.text_features()[1])  # no loss of Phase II reaches it
        first = make_coft(settings).peers["peer_a"].offset
        assert peer.offset.requires_grad == bool(settings.get("class_negative", True))
        if not settings.get("class_negative", True):
            assert torch.equal(first, make_coft().peers["peer_a"].offset)


# -------------------------------------------------------------------- the negative vectors


def test_negative_vectors_are_fitted_at_the_ends_of_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def recorded(features: Tensor, labels: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        fits.append((features, labels, weight, fit_negative(features, labels, weight, *rest, steps=20)))
        return fits[-1][-1]

    monkeypatch.setattr(negatives, "fit_negative", recorded)
    method = make_coft()  # two epochs of Phase I, three of Phase II, labels renewed every other epoch
    train(method)
    assert len(fits) == len(PEERS) * 4
    for n, (name, peer) in enumerate(method.peers.items()):
        end_of_phase1, _, _, end = fits[n :: len(PEERS)]
        assert torch.equal(end_of_phase1[1], peer.seeds.label) and bool((end_of_phase1[2] == 1).all())
        torch.testing.assert_close(peer.text_features()[1], end_of_phase1[-1])
        trained_on = peer.labels.weighted()
        assert torch.equal(end[1], trained_on.label)
        sums = [float(peer.labels.weight[peer.labels.label == c].double().sum()) for c in range(CLASSES)]
        each = zip(trained_on.label.tolist(), trained_on.weight.tolist(), strict=True)
        balanced = [w / (1 + sums[y]) for y, w in each]
        torch.testing.assert_close(end[2] / end[2].sum(), torch.tensor(balanced) / sum(balanced))
        tested = peer.inference_model(0.5, ["positive"])
        for classifier in (peer.teacher(), tested, method.inference_models()[name]):
            torch.testing.assert_close(classifier.negative, end[-1])
        with torch.no_grad():
            torch.testing.assert_close(end[0], tested.features(method.images.pixels[trained_on.index]))
        assert not end[0].requires_grad


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_phase_two_is_averaged_with_phase_one_by_its_share(share: float) -> None:
    for fits in (True, False):
        method = make_coft({"class_negative": fits, "phase2": replace(PHASES["phase2"], wise=share)})
        train(method)
        for name, peer in method.peers.items():
            start, end, tested = peer.prompted(), peer.teacher(), method.inference_models()[name]
            both = zip(start.encoder.parameters(), end.encoder.parameters(), tested.encoder.parameters(), strict=True)
            triples = [*both]
            for head in ("positive", "negative"):
                first, last, found = (getattr(classifier, head) for classifier in (start, end, tested))
                first, last = F.normalize(first, dim=-1), F.normalize(last, dim=-1)
                found = found if share < 1 else F.normalize(found, dim=-1)
                averaged = head == "positive" or not fits
                triples.append((first, last, found) if averaged else (last, last, F.normalize(found, dim=-1)))
            for first, last, found in triples:
                torch.testing.assert_close(found, (1 - share) * first + share * last)


# -------------------------------------------------------------------- prediction


@pytest.mark.parametrize("classify", ["joint", "positive"])
@pytest.mark.parametrize("until", [1, 5])
def test_a_prediction_is_the_mean_of_the_peers_probabilities_of_the_score_that_classify_names(
    classify: str, until: int
) -> None:
    method = make_coft({"classify": classify})
    train(method, until)
    images = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    reported = method.predict_each(images)
    assert list(reported) == list(PEERS) and method.ensemble_size == 2
    for name, classifier in method.inference_models().items():
        with torch.no_grad():
            logits, odds = classifier(images)
        scores = {"joint": (logits + odds) / 2, "positive": logits}
        torch.testing.assert_close(reported[name], scores.pop(classify).softmax(dim=1))
        assert not any(torch.allclose(reported[name], other.softmax(dim=1)) for other in scores.values())
        assert not reported[name].requires_grad
    both = method.predict(images).exp()
    torch.testing.assert_close(both, sum(reported.values()) / 2)


def test_what_is_tested_is_made_again_when_weights_have_changed() -> None:
    method, images = make_coft(), torch.randn(4, 3, 4, 4)
    train(method, 1)
    first = method.predict(images)
    assert torch.equal(method.predict(images), first)
    for batch in method.begin_epoch(1):
        method.step(batch)
    during, present = method.predict(images), method.pair.predict_each(method.inference_models(), images, "joint")
    torch.testing.assert_close(during.exp(), sum(present.values()) / 2)
    method.end_epoch(1)
    after = method.predict(images)
    assert not torch.equal(first, during) and not torch.equal(during, after)  # the end of Phase I fits the negatives
    other = make_coft()
    for name, peer in other.models.items():
        peer.load_state_dict(method.models[name].state_dict())
    other.loaded()
    assert torch.equal(other.predict(images), after)


def test_a_filter_that_keeps_nothing_is_an_error() -> None:
    def nothing(own: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, torch.zeros(COUNT))

    with pytest.raises(ValueError, match="keeps no label"):
        begun(make_coft(filter=nothing), FIRST)
    assert set(FILTERS) == {"both", "both-hard", "peer", "probability", "self", "none"}


def test_a_run_with_filters_ends_in_other_weights() -> None:
    method = make_coft()
    train(method, FIRST)
    start, found = saved(method), []
    for filter in ("both", *FILTERS):
        method = make_coft({"filter": filter})
        load(method, start)
        train(method, FIRST + 1, FIRST)
        found.append(weights(method))
    assert_same_bits(found[0], found[1])
    heads = [own["peer_a.student.positive"] for own in found[1:]]
    assert not any(torch.equal(a, b) for n, a in enumerate(heads) for b in heads[:n])
