from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coft.method.seeds import Seeds, cached, correct_prior_, odds_of, seed_quota, select_seeds


def random_logits(n: int, c: int, seed: int) -> torch.Tensor:
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed)) * 3


def naive_select(logits: torch.Tensor, quotas: list[int]) -> tuple[list[tuple[int, int]], list[int]]:
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
    pairs = [(i, c) for c in range(num_classes) for i in chosen[c]]
    return pairs, [c for c in range(num_classes) if len(chosen[c]) < quotas[c]]


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.integers(2, 6), st.integers(1, 12), st.integers(0, 10_000))
def test_seeds_equal_a_naive_selection(n: int, c: int, per_class: int, seed: int) -> None:
    logits = random_logits(n, c, seed)
    seeds, short = select_seeds(logits, per_class)
    expected, expected_short = naive_select(logits, [per_class] * c)
    assert list(zip(seeds.ranks.tolist(), seeds.labels.tolist(), strict=True)) == expected
    assert short == expected_short


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.lists(st.integers(0, 12), min_size=2, max_size=6), st.integers(0, 10_000))
def test_seeds_of_quotas_of_each_class_equal_a_naive_selection(n: int, quotas: list[int], seed: int) -> None:
    logits = random_logits(n, len(quotas), seed)
    seeds, short = select_seeds(logits, torch.tensor(quotas))
    expected, expected_short = naive_select(logits, quotas)
    assert list(zip(seeds.ranks.tolist(), seeds.labels.tolist(), strict=True)) == expected
    assert short == expected_short


@pytest.mark.parametrize(("n", "c", "expected"), [(1200, 10, 16), (1182, 80, 4), (560, 129, 1), (50, 100, 1)])
def test_seeds_are_a_share_of_a_class_at_most(n: int, c: int, expected: int) -> None:
    assert seed_quota(n, c, at_most=16, share=0.5) == expected


def test_equal_scores_go_by_rank() -> None:
    logits = torch.tensor([[2.0, 0.0]] * 5 + [[0.0, 2.0]] * 5)
    seeds, _ = select_seeds(logits, 2)
    assert seeds.ranks.tolist() == [0, 1, 5, 6]


def test_saturated_posteriors_are_still_ranked() -> None:
    """In fp32 all of these probabilities are 1; the surest image must come first all the same."""
    logits = torch.tensor([[40.0, 0.0], [60.0, 0.0], [50.0, 0.0]])
    assert (logits.softmax(dim=1)[:, 0] == 1).all()
    assert select_seeds(logits, 3)[0].ranks.tolist() == [1, 2, 0]


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


def test_prior_correction_finds_a_class_that_is_hardly_ever_predicted() -> None:
    logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 0.0, -4.0])
    before, after = (
        torch.bincount(correct_prior_(logits.clone(), tau).argmax(1), minlength=3)[2] for tau in (0.0, 0.5)
    )
    assert after > 2 * before


def test_peers_take_turns_within_each_class() -> None:
    seeds = Seeds(torch.arange(10), torch.tensor([0] * 5 + [1] * 5))
    even, odd = seeds.every_other(0, 2), seeds.every_other(1, 2)
    assert even.ranks.tolist() == [0, 2, 4, 5, 7, 9] and odd.ranks.tolist() == [1, 3, 6, 8]
    assert even.labels.tolist() == [0, 0, 0, 1, 1, 1] and odd.labels.tolist() == [0, 0, 1, 1]


def test_cache_returns_the_same_bits_and_computes_once(tmp_path: Path) -> None:
    calls = []

    def compute() -> torch.Tensor:
        calls.append(1)
        return random_logits(5, 3, 7)

    first, second = (cached(compute, tmp_path, "a", "b") for _ in range(2))
    assert torch.equal(first, second) and len(calls) == 1
    cached(compute, tmp_path, "a", "c")
    assert len(calls) == 2
    assert not list(tmp_path.glob("*.tmp"))
