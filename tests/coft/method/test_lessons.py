from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from coft.method.lessons import seed_targets, taught_targets, text_pull, weighted_cross_entropy
from coft.method.pseudo_labels import Lesson
from coft.method.seeds import Seeds

SETTINGS = SimpleNamespace(PHASE1=SimpleNamespace(MIN_AUC=0.9), CLEAN_RULE="calibrated", SOFT=False)
SOFT = SimpleNamespace(**{**vars(SETTINGS), "SOFT": True})


def judged(right: float = 6.0, wrong: float = -6.0) -> tuple[Seeds, torch.Tensor, torch.Tensor]:
    """Nine seeds of three classes; the judge calls the second of each class unclean and sees the next class in it."""
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    odds = torch.full((9, 3), wrong)
    guesses = torch.zeros(9, dtype=torch.long)
    for i, label in enumerate(labels.tolist()):
        seen = (label + 1) % 3 if i % 3 == 1 else label
        odds[i, label] = math.log(2) - 0.1 if i % 3 == 1 else right
        guesses[i] = seen
    return Seeds(torch.tensor([30, 10, 20, 50, 40, 60, 80, 70, 90]), labels), guesses, odds


def test_unclean_seeds_leave_the_classification_loss_and_are_relabelled_for_the_dual_loss() -> None:
    targets = seed_targets(*judged(), SETTINGS, active=True, at_least=1)
    assert targets.weight.tolist() == [True, False, True] * 3
    assert targets.adjustment.tolist() == pytest.approx([math.log(1 / 3)] * 3)
    assert targets.dual_labels.tolist() == [0, 1, 0, 1, 2, 1, 2, 0, 2]
    assert targets.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_calibrated_threshold_is_log_c_minus_1() -> None:
    """At C = 3 the clean log-odds of the unclean seeds lie just below log 2, far above the raw rule's 0."""
    raw = SimpleNamespace(**{**vars(SETTINGS), "CLEAN_RULE": "raw"})
    assert seed_targets(*judged(), raw, active=True, at_least=1).weight.all()


def test_all_count_as_clean_while_warming_up_or_while_the_judge_cannot_tell() -> None:
    seeds, guesses, odds = judged()
    for targets in (
        seed_targets(seeds, guesses, odds, SOFT, active=False, at_least=1),
        seed_targets(seeds, guesses, odds, SETTINGS, active=False, at_least=1),
        seed_targets(seeds, guesses, -odds, SETTINGS, active=True, at_least=1),
    ):
        assert targets.weight.all() and torch.equal(targets.dual_labels, seeds.labels)


def test_no_class_is_left_without_seeds() -> None:
    seeds, guesses, odds = judged()
    odds[6:] -= 9  # the third class is called unclean as a whole
    targets = seed_targets(seeds, guesses, odds, SETTINGS, active=True, at_least=1)
    assert torch.bincount(targets.labels[targets.weight], minlength=3).min() == 1
    assert targets.adjustment.tolist() == pytest.approx([math.log(3 / 8), math.log(3 / 8), math.log(2 / 8)])
    assert targets.separation < 1


def test_soft_seeds_weigh_as_much_as_they_are_likely_clean() -> None:
    seeds, guesses, odds = judged()
    targets = seed_targets(seeds, guesses, odds, SOFT, active=True, at_least=0)
    told = [1 / (1 + math.exp(math.log(2) - odds[i, y])) for i, y in enumerate(seeds.labels.tolist())]
    assert targets.weight.tolist() == pytest.approx(told)
    assert targets.dual_labels.tolist() == [0, 1, 0, 1, 2, 1, 2, 0, 2]  # relabelled where below 1/2
    counts = [1 + sum(told[3 * c : 3 * c + 3]) for c in range(3)]
    assert targets.adjustment.exp().tolist() == pytest.approx([n / sum(counts) for n in counts])
    floored = seed_targets(seeds, guesses, odds, SOFT, active=True, at_least=3)
    assert floored.weight.tolist() == [1] * 9


def test_targets_are_found_by_rank() -> None:
    targets = seed_targets(*judged(), SETTINGS, active=True, at_least=1)
    labels, weight, dual = targets.of(torch.tensor([70, 30, 40, 40]))
    assert labels.tolist() == [2, 0, 1, 1] and weight.tolist() == [False, True, False, False]
    assert dual.tolist() == [0, 0, 2, 2]


def test_taught_targets_hold_the_kept_labels_alone() -> None:
    lesson = Lesson(torch.tensor([1, 0, 1, 2]), torch.tensor([True, False, True, True]))
    targets = taught_targets(lesson, 3)
    assert targets.ranks.tolist() == [0, 2, 3] and targets.labels.tolist() == [1, 1, 2]
    assert targets.adjustment.exp().tolist() == pytest.approx([1 / 6, 3 / 6, 2 / 6])


def test_taught_targets_hold_all_labels_that_have_a_weight() -> None:
    lesson = Lesson(torch.tensor([1, 0, 1, 2]), torch.tensor([0.25, 0.0, 1.0, 0.5]))
    targets = taught_targets(lesson, 3)
    assert targets.ranks.tolist() == [0, 2, 3] and targets.weight.tolist() == [0.25, 1, 0.5]
    assert targets.adjustment.exp().tolist() == pytest.approx([1 / 4.75, 2.25 / 4.75, 1.5 / 4.75])


@pytest.mark.parametrize(
    "weight", [[True, False, True, True, False, False], [0.2, 0.0, 0.9, 1.0, 0.5, 0.1], [0.1, 0.0, 0.2, 0.0, 0.3, 0.1]]
)
def test_weighted_cross_entropy_equals_a_naive_loop(weight: list[float]) -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label = torch.tensor([0, 1, 2, 3, 0, 1])
    each = [-w * torch.log(torch.softmax(logits[i], 0)[label[i]]) for i, w in enumerate(weight)]
    plain = sum(each) / max(1.0, sum(weight))
    ours = weighted_cross_entropy(logits, label, torch.tensor(weight).to(logits if 0.1 in weight else torch.bool))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, plain)))


def test_weighted_cross_entropy_of_nothing_is_zero_with_finite_gradients() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = weighted_cross_entropy(logits, torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros(3, 4))


def test_text_pull_equals_a_naive_loop_with_gradients() -> None:
    source = torch.Generator().manual_seed(0)
    positive = torch.randn(4, 6, generator=source, dtype=torch.float64, requires_grad=True)
    anchor = torch.randn(4, 6, generator=source, dtype=torch.float64)
    plain = sum(sum((positive[c, i] - anchor[c, i]) ** 2 for i in range(6)) for c in range(4)) / 4
    pull = text_pull(positive, anchor)
    torch.testing.assert_close(pull, plain)
    for ours, expected in zip(*(torch.autograd.grad(x, positive) for x in (pull, plain)), strict=True):
        torch.testing.assert_close(ours, expected)
