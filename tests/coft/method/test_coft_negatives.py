"""Fits of CoFT's negative vectors: their labels, weights and times."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.method import negative_prompt, negatives
from coft.method.negative_prompt import fit_negative
from tests.coft import naive
from tests.coft.toys import CLASSES, PARTNER, PEERS, begin_at, make_coft, train

Fit = tuple[Tensor, Tensor, Tensor, Tensor]  # features, labels, their weights, the vectors


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Fit]:
    """Arguments and results of all fits."""
    fits: list[Fit] = []

    def recorded(features: Tensor, labels: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        fits.append((features, labels, weight, fit_negative(features, labels, weight, *rest, steps=20)))
        return fits[-1][-1]

    monkeypatch.setattr(negatives, "fit_negative", recorded)
    return fits


@pytest.mark.usefixtures("label_each_epoch")
@pytest.mark.parametrize("filter", ["min-p-clean", "own"])
def test_they_are_fitted_to_the_partner_s_labels_at_each_labelling(filter: str, fits: list[Fit]) -> None:
    method = make_coft({"filter": filter})
    begin_at(method, method.phase1_epochs)
    predictions, *_ = method.observer.labels[-1]
    for (features, labels, weight, negative), (name, partner) in zip(fits[-2:], PARTNER.items(), strict=True):
        source = predictions[name if filter == "own" else partner]
        assert torch.equal(labels, source.label)
        for i, y in enumerate(labels.tolist()):
            probabilities = [float(p.probability.all()[i, y]) for p in (predictions[name], source)]
            assert float(weight[i]) == pytest.approx(min(probabilities))
        teacher = method.peers[name].teacher()
        torch.testing.assert_close(teacher.negative, negative)
        positive, scale = F.normalize(teacher.positive, dim=-1), teacher.scale
        odds = naive.without_prior(scale * features @ (positive - F.normalize(negative, dim=-1)).t())
        odds = naive.calibrated(method, odds, labels.tolist())
        torch.testing.assert_close(predictions[name].clean.all(), odds.softmax(dim=1), rtol=1e-4, atol=1e-5)


def test_they_are_fitted_at_the_end(fits: list[Fit]) -> None:
    method = make_coft()  # two epochs of Phase I, three of Phase II, labels renewed every other epoch
    train(method)
    assert len(fits) == len(PEERS) * 3
    for n, (name, peer) in enumerate(method.peers.items()):
        *_, end = fits[n :: len(PEERS)]
        labels = method.labels[name]
        trained_on = labels.nonzero()
        assert torch.equal(end[1], trained_on.label)
        sums = [float(labels.weight[labels.label == c].double().sum()) for c in range(CLASSES)]
        pairs = zip(trained_on.label.tolist(), trained_on.weight.tolist(), strict=True)
        balanced = [w / (1 + sums[y]) for y, w in pairs]
        torch.testing.assert_close(end[2] / end[2].sum(), torch.tensor(balanced) / sum(balanced))
        averaged = peer.inference_model(0.5, ["positive"])
        for classifier in (peer.teacher(), averaged, method.inference_models()[name]):
            torch.testing.assert_close(classifier.negative, end[-1])
        with torch.no_grad():
            pixels = method.engine.images.pixels[trained_on.index]
            torch.testing.assert_close(end[0], averaged.features(pixels))
        assert not end[0].requires_grad


def test_a_fit_to_many_labels_uses_a_sample_of_their_images(fits: list[Fit], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negative_prompt, "FIT_IMAGES", 8)
    method = make_coft()
    train(method)
    for (features, label, *_), (name, peer) in zip(fits[-len(PEERS) :], method.peers.items(), strict=True):
        with torch.no_grad():
            pool = peer.inference_model(0.5, ["positive"]).features(method.engine.images.pixels)
        images = torch.cdist(features, pool).argmin(dim=1)
        assert len(images.unique()) == 8 and torch.equal(method.labels[name].label[images], label)


@pytest.mark.usefixtures("label_each_epoch")
@pytest.mark.parametrize("settings", [{"negative": "prompt"}, {"negative": "none"}])
def test_other_kinds_of_negatives_are_not_fitted(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    method: Any = make_coft(settings)
    start = {name: peer.negative_residual.detach().clone() for name, peer in method.peers.items()}
    monkeypatch.setattr(negatives, "fit_negative", partial(pytest.fail, "fitted"))
    train(method)
    for name, peer in method.peers.items():
        # no loss of Phase II trains them
        torch.testing.assert_close(peer.student.model.negative, peer.text_features()[1])
        trains = settings["negative"] != "prompt"
        assert peer.negative_residual.requires_grad == trains
        assert trains or torch.equal(peer.negative_residual, start[name])
