from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coft.labelling.pseudo_labels import (
    Predictions,
    PseudoLabels,
    correct_prior_,
    given_quotas,
    odds_of,
    prior_offset,
    seed_quota,
    select_seeds,
)


def pairs(labels: PseudoLabels) -> list[tuple[int, int]]:
    return list(zip(labels.index.tolist(), labels.label.tolist(), strict=True))


def random_logits(n: int, c: int, seed: int) -> torch.Tensor:
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed)) * 3


def naive_select(logits: torch.Tensor, quotas: list[int]) -> list[tuple[int, int]]:
    n, num_classes = logits.shape

    def odds(i: int, c: int) -> float:
        p = torch.softmax(logits[i].double(), dim=0)
        return math.log(p[c]) - math.log(sum(p[k] for k in range(num_classes) if k != c))

    ranking = [sorted(range(num_classes), key=lambda c: -logits[i, c].item()) for i in range(n)]
    chosen: dict[int, list[int]] = {c: [] for c in range(num_classes)}
    for c in range(num_classes):
        mine = sorted((i for i in range(n) if ranking[i][0] == c), key=lambda i: (-odds(i, c), i))
        chosen[c] = mine[: quotas[c]]
    used = {i for members in chosen.values() for i in members}
    for i in sorted((i for i in range(n) if i not in used), key=lambda i: (-odds(i, ranking[i][1]), i)):
        if len(chosen[ranking[i][1]]) < quotas[ranking[i][1]]:
            chosen[ranking[i][1]].append(i)
    return [(i, c) for c in range(num_classes) for i in chosen[c]]


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.integers(2, 6), st.integers(1, 12), st.integers(0, 10_000))
def test_seeds_equal_a_naive_selection(n: int, c: int, per_class: int, seed: int) -> None:
    logits = random_logits(n, c, seed)
    seeds = select_seeds(logits, per_class)
    assert pairs(seeds) == naive_select(logits, [per_class] * c)
    assert bool((seeds.weight == 1).all()) and len(set(seeds.index.tolist())) == len(seeds.index)


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.lists(st.integers(0, 12), min_size=2, max_size=6), st.integers(0, 10_000))
def test_seeds_of_quotas_of_each_class_equal_a_naive_selection(n: int, quotas: list[int], seed: int) -> None:
    logits = random_logits(n, len(quotas), seed)
    assert pairs(select_seeds(logits, torch.tensor(quotas))) == naive_select(logits, quotas)


@pytest.mark.parametrize(("n", "c", "expected"), [(1200, 10, 16), (1182, 80, 4), (560, 129, 1), (50, 100, 1)])
def test_seeds_are_a_share_of_a_class_at_most(n: int, c: int, expected: int) -> None:
    assert seed_quota(n, c, at_most=16, share=0.5) == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(2, 6), st.integers(1, 12), st.integers(0, 8), st.integers(0, 10_000))
def test_seeds_are_a_share_of_the_images_that_a_class_is_given(
    n: int, c: int, most: int, eighths: int, seed: int
) -> None:
    logits = random_logits(n, c, seed)
    given = [0] * c
    for row in logits.tolist():
        given[row.index(max(row))] += 1
    expected = [min(most, math.ceil(count * eighths / 8)) for count in given]
    found = given_quotas(logits, eighths / 8, most)
    assert found.tolist() == expected and found.dtype == torch.long
    seeds = select_seeds(logits, found)  # no class is filled up from others
    assert torch.bincount(seeds.label, minlength=c).tolist() == expected
    assert torch.equal(logits.argmax(dim=1)[seeds.index], seeds.label)


def test_equal_scores_go_by_index() -> None:
    logits = torch.tensor([[2.0, 0.0]] * 5 + [[0.0, 2.0]] * 5)
    assert select_seeds(logits, 2).index.tolist() == [0, 1, 5, 6]


def test_saturated_posteriors_are_still_ranked() -> None:
    """In fp32 all of these probabilities are 1; the surest image must come first all the same."""
    logits = torch.tensor([[40.0, 0.0], [60.0, 0.0], [50.0, 0.0]])
    assert (logits.softmax(dim=1)[:, 0] == 1).all()
    assert select_seeds(logits, 3).index.tolist() == [1, 2, 0]


def test_log_odds_are_exact() -> None:
    logits = random_logits(8, 5, 0)
    label = logits.argmax(dim=1)
    p = logits.double().softmax(dim=1).gather(1, label[:, None]).squeeze(1)
    torch.testing.assert_close(odds_of(logits, label), p.log() - (1 - p).log())


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_prior_correction_equals_a_naive_loop(tau: float) -> None:
    logits = random_logits(30, 4, 1)
    corrected = correct_prior_(logits.clone(), tau)
    probabilities = [torch.softmax(row.double(), dim=0) for row in logits]
    for c in range(4):
        prior = sum(p[c].item() for p in probabilities) / 30
        torch.testing.assert_close(corrected[:, c], logits[:, c] - tau * math.log(prior))
        assert prior_offset(logits, tau)[c].item() == pytest.approx(tau * math.log(prior), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_offset_is_finite_of_the_logits_type_and_changes_none(dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, 0.0, -1e4], [1.0, 0.0, -1e4]], dtype=dtype)
    before, offset = logits.clone(), prior_offset(logits, 0.5)
    assert offset.dtype == dtype and torch.equal(logits, before)
    assert offset[2].item() == pytest.approx(0.5 * math.log(1e-12))  # of a class without any probability


def test_prior_correction_finds_a_class_that_is_hardly_ever_predicted() -> None:
    logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 0.0, -4.0])
    before, after = (
        torch.bincount(correct_prior_(logits.clone(), tau).argmax(1), minlength=3)[2] for tau in (0.0, 0.5)
    )
    assert after > 2 * before


# -------------------------------------------------------------------- pseudo-labels


def drawn(count: int, seed: int = 0) -> PseudoLabels:
    source = torch.Generator().manual_seed(seed)
    index = torch.randperm(3 * count, generator=source)[:count]
    weight = torch.rand(count, generator=source).round(decimals=1)
    return PseudoLabels(index, torch.randint(4, (count,), generator=source), weight)


def rows(labels: PseudoLabels) -> list[tuple[int, int, float]]:
    return list(zip(labels.index.tolist(), labels.label.tolist(), labels.weight.tolist(), strict=True))


@pytest.mark.parametrize("which", [slice(0, None, 2), slice(1, None, 2), slice(2), slice(0)])
def test_those_at_some_places_of_each_class_equal_a_naive_loop(which: slice) -> None:
    labels = drawn(20)
    members = [[row for row in rows(labels) if row[1] == c] for c in range(4)]
    assert rows(labels.of_classes(which, 4)) == [row for own in members for row in own[which]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 1000))
def test_labels_are_found_by_image(count: int, seed: int) -> None:
    labels = drawn(count, seed)
    wanted = labels.index[torch.randint(count, (7,), generator=torch.Generator().manual_seed(seed))]
    known = {row[0]: row for row in rows(labels)}
    assert rows(labels.of(wanted)) == [known[i] for i in wanted.tolist()]


def test_labels_with_a_weight_and_those_more_likely_right_than_not() -> None:
    labels = drawn(40)
    assert rows(labels.weighted()) == [row for row in rows(labels) if row[2] > 0] != rows(labels)
    assert labels.keep.tolist() == [row[2] > 0.5 for row in rows(labels)]
    assert rows(labels.at(torch.tensor([3, 0, 3]))) == [rows(labels)[i] for i in (3, 0, 3)]


def test_labels_of_the_whole_pool() -> None:
    label = torch.tensor([2, 0, 1])
    assert rows(PseudoLabels.of_pool(label)) == [(0, 2, 1.0), (1, 0, 1.0), (2, 1, 1.0)]
    for weight in (torch.tensor([True, False, True]), torch.tensor([1.0, 0.0, 1.0])):
        labels = PseudoLabels.of_pool(label, weight)
        assert rows(labels) == [(0, 2, 1.0), (1, 0, 0.0), (2, 1, 1.0)] and labels.weight.is_floating_point()
    assert rows(PseudoLabels.none()) == []


def test_log_frequency_is_finite_for_a_class_without_images() -> None:
    labels = PseudoLabels.certain(torch.arange(4), torch.tensor([0, 0, 0, 2]))
    assert labels.log_frequency(3).tolist() == pytest.approx([math.log(4 / 7), math.log(1 / 7), math.log(2 / 7)])


def test_log_frequency_counts_weights() -> None:
    labels = PseudoLabels(torch.arange(3), torch.tensor([0, 0, 1]), torch.tensor([0.5, 0.25, 1.0]))
    assert labels.log_frequency(2).exp().tolist() == pytest.approx([1.75 / 3.75, 2 / 3.75])


# -------------------------------------------------------------------- predictions


def test_confidence_and_margin_equal_a_naive_loop() -> None:
    source = torch.Generator().manual_seed(2)
    probability, clean = (torch.randn(2, 50, 5, generator=source) * 2).softmax(dim=2)
    best, label = probability.argmax(dim=1), torch.randint(5, (50,), generator=source)
    own = Predictions(best, probability, clean)
    for i, row in enumerate(probability.tolist()):
        first, second = sorted(row)[-1], sorted(row)[-2]
        assert own.confidence[i].item() == pytest.approx(first)
        assert own.margin[i].item() == pytest.approx(first - second, abs=1e-7)
        assert own.probability_of(label)[i].item() == row[label[i]]
        assert own.p_clean(label)[i].item() == clean[i, label[i]].item()
    other = Predictions(label, probability, clean)  # labels that are not the likeliest ones
    for i, row in enumerate(probability.tolist()):
        rest = max(p for c, p in enumerate(row) if c != label[i])
        assert other.margin[i].item() == pytest.approx(row[label[i]] - rest, abs=1e-7)
