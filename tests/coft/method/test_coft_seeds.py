"""CoFT's seeds: their division between peers, and their weights by the partner in Phase I."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from coft.core.errors import UserError
from coft.labelling.pseudo_labels import PseudoLabels
from coft.method import guard
from coft.method.coft_settings import Phase1
from tests.coft import naive
from tests.coft.toys import CLASSES, PARTNER, PEERS, ToyImages, begin_at, make_coft, pairs

ALL_SEEDS = {"seeds_per_class": 5}


def test_peers_differ_in_seeds_prompts_batches_and_views() -> None:
    method = make_coft({"n_ctx": 4})
    begin_at(method)
    a, b = method.peers.values()
    first, second = method.labels.values()
    assert not set(first.index.tolist()) & set(second.index.tolist())
    assert not torch.allclose(a.prompted().positive, b.prompted().positive, atol=1e-3)
    assert not torch.equal(a.prompts.positive, b.prompts.positive)
    method.labels = dict.fromkeys(PEERS, second)  # the same images for both
    drawn = [[batch[name] for batch in method.engine.begin_epoch(0)] for name in PEERS]
    order = [torch.cat([part.index for part in parts]).tolist() for parts in drawn]
    assert sorted(set(order[0])) == sorted(set(order[1])) and order[0] != order[1]
    views = [{int(i): v for part in parts for i, v in zip(part.index, part.views, strict=True)} for parts in drawn]
    assert not any(torch.equal(views[0][i], views[1][i]) for i in views[0].keys() & views[1].keys())


@pytest.mark.usefixtures("no_seed_limit")
@pytest.mark.usefixtures("no_propagation")
@pytest.mark.parametrize(
    ("rule", "filter"),
    [("softmax", "min-p-clean"), ("sigmoid", "own"), ("sigmoid", "min-p-clean-hard"), ("softmax", "none")],
)
def test_the_weight_of_a_seed_is_the_partner_s_p_clean(rule: str, filter: str) -> None:
    method: Any = make_coft({"clean_rule": rule, "filter": filter} | ALL_SEEDS)
    method.engine.begin()
    source = torch.Generator().manual_seed(0)
    for peer in method.peers.values():
        residual = peer.negative_residual
        residual.data += torch.randn(residual.shape, generator=source)  # else both peers predict the same
    for epoch in range(2):
        seeds = dict(method.labels)
        method.engine.begin_epoch(epoch)
        for name, partner in PARTNER.items():
            weight = partner_p_clean(method, partner, seeds[name], rule)
            if filter == "min-p-clean-hard":
                weight = [float(w > 0.5) for w in weight]
            labels = method.labels[name]
            assert labels.weight.tolist() == pytest.approx(
                [1.0] * len(weight) if filter == "none" else weight, abs=1e-4
            )
            assert pairs(labels) == pairs(seeds[name])
            assert torch.tensor(weight).std() > 0.01


def partner_p_clean(method: Any, partner: str, seeds: PseudoLabels, rule: str) -> list[float]:
    """p_clean of seeds by the partner, image by image."""
    model = method.peers[partner].prompted()
    with torch.no_grad():
        features = F.normalize(model.encoder(method.engine.images.pixels[seeds.index]), dim=-1)
        vectors = F.normalize(model.positive, dim=-1) - F.normalize(model.negative, dim=-1)
        odds = model.scale * features @ vectors.t()
    if rule == "softmax":
        odds = odds / naive.temperature_of(method, odds, seeds.index.tolist(), seeds.label.tolist())
    return [naive.p_clean(d, y, rule) for d, y in zip(odds.tolist(), seeds.label.tolist(), strict=True)]


@pytest.mark.usefixtures("no_seed_limit")
@pytest.mark.parametrize(
    ("batch", "seeds", "min_steps"), [(4, 3, 4), (2, 3, 20), (2, 4, 2), (100, 5, 0), (3, 3, 7), (30, 3, 7)]
)
def test_an_epoch_is_a_pass_over_the_seeds_or_its_share_of_min_steps(batch: int, seeds: int, min_steps: int) -> None:
    settings = {"seeds_per_class": seeds, "phase1": Phase1(2, min_steps)}
    method = make_coft(settings, images=ToyImages(60, batch_size=batch))
    steps, left, passes = len(begin_at(method)), CLASSES * seeds, 0
    assert left >= max(len(labels.index) for labels in method.labels.values())
    while left > 0:
        left, passes = left - batch, passes + 1
    assert steps == method.steps(1)
    assert steps >= passes and 2 * steps >= min_steps
    assert steps == passes or 2 * (steps - 1) < min_steps  # no extra step
    left, passes = 60, 0
    while left > 0:
        left, passes = left - batch, passes + 1
    assert len(method.engine.begin_epoch(2)) == method.steps(2) == passes


def test_too_few_images_for_two_peers_are_refused() -> None:
    with pytest.raises(UserError, match="too few images to choose seeds for two peers: 1 of 3"):
        make_coft(images=ToyImages(1)).engine.begin()


def test_without_training_few_images_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MIN_SKILL", 2.0)
    monkeypatch.setattr(guard, "MIN_INFORMATION", 2.0)
    method = make_coft(images=ToyImages(1), guard=True)
    method.engine.begin()
    assert not method.trains and list(method.predictor().classifiers) == ["zero_shot"]
