"""CoFT's seeds: how the first ones are chosen and shared, and how the partner weighs them in Phase I."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from coft.core.errors import UserError
from coft.core.table import Table
from coft.labelling.pseudo_labels import PseudoLabels
from coft.method.coft_settings import Phase1
from coft.method.negative_prompt import separation
from tests.coft import naive
from tests.coft.toys import CLASSES, PARTNER, PEERS, ToyImages, begun, make_coft, pairs

ALL_SEEDS = {"seeds_per_class": 5, "seeds_share": 1.0}


def test_peers_differ_in_seeds_prompts_batches_and_views() -> None:
    method = make_coft({"n_ctx": 4})
    begun(method)
    a, b = method.peers.values()
    first, second = method.labels.values()
    assert not set(first.index.tolist()) & set(second.index.tolist())
    assert not torch.allclose(a.prompted().positive, b.prompted().positive, atol=1e-3)
    assert not torch.equal(a.prompts.positive, b.prompts.positive)
    method.labels = dict.fromkeys(PEERS, second)  # the same images to both
    drawn = [[batch[name] for batch in method.engine.begin_epoch(0)] for name in PEERS]
    order = [torch.cat([part.index for part in parts]).tolist() for parts in drawn]
    assert sorted(set(order[0])) == sorted(set(order[1])) and order[0] != order[1]
    seen = [{int(i): v for part in parts for i, v in zip(part.index, part.views, strict=True)} for parts in drawn]
    assert not any(torch.equal(seen[0][i], seen[1][i]) for i in seen[0].keys() & seen[1].keys())


@pytest.mark.usefixtures("warm_at_once", "none_in_any_case", "alone")
@pytest.mark.parametrize(
    ("rule", "filter"), [("softmax", "min-p-clean"), ("sigmoid", "min-p-clean"), ("sigmoid", "min-p-clean-hard")]
)
def test_seeds_weigh_as_much_as_the_partner_finds_them_clean_once_it_is_warm(rule: str, filter: str) -> None:
    method: Any = make_coft({"clean_rule": rule, "filter": filter} | ALL_SEEDS)
    method.engine.begin()
    source = torch.Generator().manual_seed(0)
    for peer in method.peers.values():
        residual = peer.negative_residual
        residual.data += torch.randn(residual.shape, generator=source)  # else the peers say the same
    for epoch in range(2):
        warm = epoch == 1  # enough steps in an epoch
        seeds = dict(method.labels)
        method.engine.begin_epoch(epoch)
        for n, (name, partner) in enumerate(PARTNER.items()):
            weight, dual, odds = judged_by(method, partner, seeds[name], rule)
            if filter == "min-p-clean-hard":
                weight = [float(w > 0.5) for w in weight]
            labels = method.labels[name]
            assert labels.weight.tolist() == pytest.approx(weight if warm else [1.0] * len(weight), abs=1e-5)
            assert labels.dual.tolist() == (dual if warm else seeds[name].label.tolist())
            assert pairs(labels) == pairs(seeds[name])
            measured = method.observer.filtered[-1][1]
            expected = separation(Table.of(odds), labels.label)
            assert measured[n] == pytest.approx(expected) if warm else not measured
            assert torch.tensor(weight).std() > 0.01


def judged_by(method: Any, partner: str, seeds: PseudoLabels, rule: str) -> tuple[list[float], list[int], torch.Tensor]:
    """p_clean of seeds, labels of the dual loss, and clean log-odds, an image at a time."""
    model = method.peers[partner].prompted()
    with torch.no_grad():
        features = F.normalize(model.encoder(method.engine.images.pixels[seeds.index]), dim=-1)
        logits = model.scale * features @ F.normalize(model.positive, dim=-1).t()
        odds = logits - model.scale * features @ F.normalize(model.negative, dim=-1).t()
    clean = [naive.likely_right(d, y, rule) for d, y in zip(odds.tolist(), seeds.label.tolist(), strict=True)]
    joint = [[x + y for x, y in zip(*rows, strict=True)] for rows in zip(logits.tolist(), odds.tolist(), strict=True)]
    each = zip(seeds.label.tolist(), clean, joint, strict=True)
    return clean, [y if p > 0.5 else scores.index(max(scores)) for y, p, scores in each], odds


@pytest.mark.parametrize(
    ("warmup", "auc", "rule", "filtered"),
    [(2, 1.0, "own", False), (3, 0.0, "own", False), (2, 0.0, "none", False), (2, 0.0, "own", True)],
)
def test_seeds_count_in_full_until_d_has_learned_enough_or_with_no_filter(
    warmup: int, auc: float, rule: str, filtered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WARMUP_STEPS", warmup), ("MIN_AUC", auc)):
        monkeypatch.setattr(f"coft.method.coft.{name}", value)
    method = make_coft({"filter": rule})
    method.engine.begin()
    seeds = dict(method.labels)
    method.engine.begin_epoch(1)  # after two steps
    for name, labels in method.labels.items():
        assert bool((labels.weight < 1).any()) == filtered
        assert torch.equal(labels.label, seeds[name].label)


@pytest.mark.usefixtures("warm_at_once")
@pytest.mark.parametrize(("seeds", "share", "min_kept", "expected"), [
    (4, 0.8, 4, 1), (5, 1.0, 4, 2), (8, 1.6, 4, 2), (9, 1.8, 4, 3), (9, 1.8, 2, 2), (16, 3.2, 4, 4), (3, 0.6, 0, 0),
])  # fmt: skip
def test_no_more_than_a_quarter_of_the_seeds_is_kept_in_any_case(
    seeds: int, share: float, min_kept: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coft.method.coft.MIN_KEPT", min_kept)
    method = make_coft({"seeds_per_class": seeds, "seeds_share": share}, images=ToyImages(60))
    assert method.per_peer == seeds
    begun(method, 1)
    for labels in method.labels.values():
        for c in range(CLASSES):
            of_class = labels.label == c
            assert int(((labels.weight == 1) & of_class).sum()) == min(expected, int(of_class.sum()))


@pytest.mark.parametrize(
    ("batch", "seeds", "min_steps"), [(4, 3, 4), (2, 3, 20), (2, 4, 2), (100, 5, 0), (3, 3, 7), (30, 3, 7)]
)
def test_an_epoch_passes_over_the_seeds_or_makes_its_part_of_the_least_steps(
    batch: int, seeds: int, min_steps: int
) -> None:
    settings = {"seeds_per_class": seeds, "seeds_share": 9.0, "phase1": Phase1(2, min_steps)}
    method = make_coft(settings, images=ToyImages(60, batch_size=batch))
    steps, left, passes = len(begun(method)), CLASSES * seeds, 0
    assert left >= max(len(labels.index) for labels in method.labels.values())
    while left > 0:
        left, passes = left - batch, passes + 1
    assert steps == method.steps(1)
    assert steps >= passes and 2 * steps >= min_steps
    assert steps == passes or 2 * (steps - 1) < min_steps  # and not one more
    left, passes = 60, 0
    while left > 0:
        left, passes = left - batch, passes + 1
    assert len(method.engine.begin_epoch(2)) == method.steps(2) == passes


def test_too_few_images_for_two_peers_are_refused() -> None:
    with pytest.raises(UserError, match="1 images are too few for seeds of two peers"):
        make_coft(images=ToyImages(1)).engine.begin()
