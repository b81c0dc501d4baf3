"""Selection of seeds, the most confident images of each class, against naive loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coft.core.table import Table
from coft.labelling.pseudo_labels import PseudoLabels
from coft.labelling.seeds import quotas, seed_quota, select_seeds, top_per_class
from tests.coft import naive
from tests.coft.toys import pairs, random_logits


def select(logits: torch.Tensor, per_class: int | torch.Tensor) -> PseudoLabels:
    return select_seeds(Table.of(logits), per_class, logits.shape[1])


def naive_select(logits: torch.Tensor, most: list[int]) -> list[tuple[int, int]]:
    return [(i, c) for c, members in enumerate(naive.surest(logits.double(), most)) for i in members]


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.lists(st.integers(0, 12), min_size=2, max_size=6), st.integers(0, 10_000))
def test_seeds_equal_a_naive_selection(n: int, most: list[int], seed: int) -> None:
    logits = random_logits(n, len(most), seed)
    assert pairs(select(logits, torch.tensor(most))) == naive_select(logits, most)
    seeds = select(logits, most[0])
    assert pairs(seeds) == naive_select(logits, [most[0]] * len(most)) and bool((seeds.weight == 1).all())


@pytest.mark.parametrize(("n", "c", "expected"), [(1200, 10, 16), (1182, 80, 4), (560, 129, 1), (50, 100, 1)])
def test_the_seed_quota_is_a_share_of_a_class_at_most(n: int, c: int, expected: int) -> None:
    assert seed_quota(n, c, at_most=16, share=0.5) == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(2, 6), st.integers(1, 12), st.integers(0, 8), st.integers(0, 10_000))
def test_quotas_are_a_share_of_the_images_predicted_as_a_class(
    n: int, c: int, most: int, eighths: int, seed: int
) -> None:
    logits = random_logits(n, c, seed)
    counts = [0] * c
    for row in logits.tolist():
        counts[row.index(max(row))] += 1
    expected = [min(most, math.ceil(count * eighths / 8)) for count in counts]
    quota = quotas(logits.argmax(dim=1), c, eighths / 8, most)
    assert quota.tolist() == expected and quota.dtype == torch.long
    seeds = select(logits, quota)  # no class takes images of others
    assert torch.bincount(seeds.label, minlength=c).tolist() == expected
    assert torch.equal(logits.argmax(dim=1)[seeds.index], seeds.label)


def test_ties_are_broken_by_index() -> None:
    logits = torch.tensor([[2.0, 0.0]] * 5 + [[0.0, 2.0]] * 5)
    assert select(logits, 2).index.tolist() == [0, 1, 5, 6]


def test_saturated_posteriors_are_still_ranked() -> None:
    """In fp32 all of these probabilities are 1, but their logits differ."""
    logits = torch.tensor([[40.0, 0.0], [60.0, 0.0], [50.0, 0.0]])
    assert (logits.softmax(dim=1)[:, 0] == 1).all()
    assert select(logits, 3).index.tolist() == [1, 2, 0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 1000))
def test_top_per_class_equals_a_naive_loop(n: int, most: list[int], seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    scores = torch.randint(6, (n,), generator=source).float()  # with many ties
    label = torch.randint(len(most), (n,), generator=source)
    expected = []
    for c, count in enumerate(most):
        members = sorted((i for i in range(n) if label[i] == c), key=lambda i: (-float(scores[i]), i))
        expected += [(i, c) for i in members[:count]]
    index, classes = top_per_class(scores, label, torch.tensor(most))
    assert list(zip(index.tolist(), classes.tolist(), strict=True)) == expected
