"""CoFT's seeds: how the first ones are chosen and shared, and how the partner weighs them in Phase I."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.method_errors import MethodError
from coft.method.coft_settings import Phase1
from coft.method.negative_prompt import separation
from tests.coft.method.toys import CLASSES, PARTNER, PEERS, ToyImages, begun, make_coft, pairs


def zero_shot(method: Any, seed: int) -> Tensor:
    """Log-probabilities of all images by the mean of their views, the prior corrected, an image at a time."""
    images, backbone = method.images, method.backbone
    text, views = backbone.zero_shot_text(), method.settings.label_views
    rows = []
    for i in range(len(images)):
        each = [F.normalize(backbone.visual(v[None]), dim=-1)[0] for v in images.views(i, views, (seed, "labels", 0))]
        rows.append(backbone.scale * sum(each) / views @ text.t())
    logits = torch.stack(rows).double()
    return without_prior(logits, method.settings.prior_tau).log_softmax(dim=1)


def without_prior(logits: Tensor, tau: float = 0.5) -> Tensor:
    """Logits with the prior corrected."""
    return logits - tau * logits.softmax(dim=1).mean(dim=0).log()


def naive_quotas(logits: Tensor, most: int, share: float = 0.5) -> list[int]:
    """Of each class a share of the images whose class it is by logits, rounded up."""
    given = [row.index(max(row)) for row in logits.tolist()]
    return [min(most, math.ceil(share * given.count(c))) for c in range(CLASSES)]


def surest(logits: Tensor, most: list[int]) -> list[list[int]]:
    """Of each class the images with the highest odds; classes that are short take what has them second."""
    ranking, p = logits.argsort(dim=1, descending=True).tolist(), logits.softmax(dim=1)
    odds = (p / (1 - p)).tolist()

    def best(place: int, c: int, without: set[int]) -> list[int]:
        mine = [i for i, row in enumerate(ranking) if row[place] == c and i not in without]
        return sorted(mine, key=lambda i: -odds[i][c])

    chosen = [best(0, c, set())[: most[c]] for c in range(CLASSES)]
    taken = {i for members in chosen for i in members}
    return [members + best(1, c, taken)[: most[c] - len(members)] for c, members in enumerate(chosen)]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_the_surest_zero_shot_labels_are_shared_by_turns_and_each_run_has_views_of_its_own(tau: float) -> None:
    logits = {}
    for seed in (1, 2):
        method = make_coft({"prior_tau": tau, "label_views": 3}, seed=seed)
        method.begin()
        logits[seed] = zero_shot(method, seed)
        most = naive_quotas(logits[seed], 2 * method.per_peer)
        expected = surest(logits[seed], most)
        for n, peer in enumerate(method.peers.values()):
            assert pairs(peer.seeds) == [(i, c) for c, members in enumerate(expected) for i in members[n::2]]
            assert peer.seeds.weight.tolist() == [1.0] * len(peer.seeds.index)
        seeds, seen, quotas = method.observer.chosen[0]
        assert pairs(seeds) == [(i, c) for c, members in enumerate(expected) for i in members]
        torch.testing.assert_close(seen.double(), logits[seed], atol=1e-4, rtol=1e-4)
        assert quotas.tolist() == most
    assert not torch.allclose(logits[1], logits[2], atol=1e-3)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("tau", [0.0, 2.0])
def test_the_prior_counts(tau: float) -> None:
    """The surest seeds of a correction as strong as this one are others."""
    method = make_coft({"prior_tau": tau})
    method.begin()
    logits = zero_shot(method, 1)
    plain = surest(logits, naive_quotas(logits, 4))
    other = make_coft({"prior_tau": 2.0 - tau})
    other.begin()
    assert [i for i, _ in pairs(method.observer.chosen[0][0])] == [i for members in plain for i in members]
    assert pairs(method.observer.chosen[0][0]) != pairs(other.observer.chosen[0][0])


def test_peers_differ_in_seeds_prompts_batches_and_views() -> None:
    method = make_coft({"n_ctx": 4})
    batches = begun(method)
    a, b = method.peers.values()
    assert not set(a.seeds.index.tolist()) & set(b.seeds.index.tolist())
    assert not torch.allclose(a.prompted().positive, b.prompted().positive, atol=1e-3)
    assert not torch.equal(a.prompts.positive, b.prompts.positive)
    a.take_seeds(b.seeds)  # the same images to both
    method.epoch = 0
    batches = list(method.begin_epoch(0))
    first, second = ([batch[name] for batch in batches] for name in PEERS)
    order = [torch.cat([part["index"] for part in parts]).tolist() for parts in (first, second)]
    assert sorted(set(order[0])) == sorted(set(order[1])) and order[0] != order[1]
    seen = [{int(i): v for part in parts for i, v in zip(part["index"], part["view"], strict=True)}
            for parts in (first, second)]  # fmt: skip
    assert not any(torch.equal(seen[0][i], seen[1][i]) for i in seen[0].keys() & seen[1].keys())


def softmax(row: list[float]) -> list[float]:
    return [math.exp(x) / sum(map(math.exp, row)) for x in row]


@pytest.mark.usefixtures("warm_at_once", "none_in_any_case", "alone")
@pytest.mark.parametrize(("rule", "filter"), [("coupled", "both"), ("raw", "both"), ("raw", "both-hard")])
def test_seeds_weigh_as_much_as_the_partner_finds_them_clean_once_it_is_warm(rule: str, filter: str) -> None:
    method = make_coft({"clean_rule": rule, "filter": filter, "seeds_per_class": 5, "seeds_share": 1.0})
    method.begin()
    source = torch.Generator().manual_seed(0)
    for peer in method.peers.values():
        peer.offset.data += torch.randn(peer.offset.shape, generator=source)  # else the peers say the same
    for epoch in range(2):
        method.epoch = epoch
        method.filter_seeds()
        labels, dual_labels = method.labels, method.dual_labels
        for n, (name, partner) in enumerate(PARTNER.items()):
            seeds, partner_model = method.peers[name].seeds, method.peers[partner].prompted()
            with torch.no_grad():
                features = F.normalize(partner_model.encoder(method.images.pixels[seeds.index]), dim=-1)
                logits = partner_model.scale * features @ partner_model.positive.t()
                odds = logits - partner_model.scale * features @ partner_model.negative.t()
            expected_weight, dual = [], []
            for plus, d, label in zip(logits.tolist(), odds.tolist(), seeds.label.tolist(), strict=True):
                clean = softmax(d)[label] if rule == "coupled" else 1 / (1 + math.exp(-d[label]))
                joint = [x + y for x, y in zip(plus, d, strict=True)]
                expected_weight.append(float(clean > 0.5) if filter == "both-hard" else clean)
                dual.append(label if clean > 0.5 else joint.index(max(joint)))
            warm = epoch == 1  # enough steps in an epoch
            assert labels[name].weight.tolist() == pytest.approx(
                expected_weight if warm else [1.0] * len(expected_weight), abs=1e-5
            )
            assert dual_labels[name].label.tolist() == (dual if warm else seeds.label.tolist())
            assert dual_labels[name].weight.tolist() == [1.0] * len(expected_weight)
            assert pairs(labels[name]) == pairs(seeds)
            measured = method.observer.filtered[-1][1]
            assert measured[n] == pytest.approx(separation(odds, seeds.label)) if warm else not measured
            assert torch.tensor(expected_weight).std() > 0.01


@pytest.mark.parametrize(("warmup", "auc", "filtered"), [(2, 1.0, False), (3, 0.0, False), (2, 0.0, True)])
def test_seeds_count_in_full_until_d_has_learned_enough(
    warmup: int, auc: float, filtered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WARMUP_STEPS", warmup), ("MIN_AUC", auc)):
        monkeypatch.setattr(f"coft.method.coft.{name}", value)
    method = make_coft()
    begun(method, 1)  # after two steps
    for name, peer in method.peers.items():
        assert bool((method.labels[name].weight < 1).any()) == filtered
        assert torch.equal(method.labels[name].label, peer.seeds.label)


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
    for name in PEERS:
        labels = method.labels[name]
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
    assert left >= max(len(peer.seeds.index) for peer in method.peers.values())
    while left > 0:
        left, passes = left - batch, passes + 1
    assert steps == method.steps(1)
    assert steps >= passes and 2 * steps >= min_steps
    assert steps == passes or 2 * (steps - 1) < min_steps  # and not one more
    left, passes = 60, 0
    while left > 0:
        left, passes = left - batch, passes + 1
    assert len(method.begin_epoch(2)) == method.steps(2) == passes


def test_too_few_images_for_two_peers_are_refused() -> None:
    with pytest.raises(MethodError, match="1 images are too few for seeds of two peers"):
        make_coft(images=ToyImages(1)).begin()
