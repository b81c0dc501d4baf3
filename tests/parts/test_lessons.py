from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from trainers.parts.lessons import masked_cross_entropy, seed_targets, taught_targets, text_pull
from trainers.parts.pseudo_labels import Lesson
from trainers.parts.seeds import Seeds

SETTINGS = SimpleNamespace(PHASE1=SimpleNamespace(MIN_AUC=0.9), CLEAN_RULE="calibrated")


def judged(right: float = 6.0, wrong: float = -6.0) -> tuple[Seeds, torch.Tensor, torch.Tensor]:
    """Nine seeds of three classes; the judge calls the second of each class unclean and sees the next class in it."""
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    odds = torch.full((9, 3), wrong)
    logits = torch.zeros(9, 3)
    for i, label in enumerate(labels.tolist()):
        seen = (label + 1) % 3 if i % 3 == 1 else label
        odds[i, label] = math.log(2) - 0.1 if i % 3 == 1 else right
        logits[i, seen] = 4.0
    return Seeds(torch.tensor([30, 10, 20, 50, 40, 60, 80, 70, 90]), labels), logits, odds


def test_unclean_seeds_leave_the_classification_loss_and_are_relabelled_for_the_dual_loss() -> None:
    targets = seed_targets(*judged(), SETTINGS, active=True, at_least=1)
    assert targets.keep.tolist() == [True, False, True] * 3
    assert targets.dual_labels.tolist() == [0, 1, 0, 1, 2, 1, 2, 0, 2]
    assert targets.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_calibrated_threshold_is_log_c_minus_1() -> None:
    """At C = 3 the clean log-odds of the unclean seeds lie just below log 2, far above the raw rule's 0."""
    raw = SimpleNamespace(**{**vars(SETTINGS), "CLEAN_RULE": "raw"})
    assert seed_targets(*judged(), raw, active=True, at_least=1).keep.all()


def test_all_count_as_clean_while_warming_up_or_while_the_judge_cannot_tell() -> None:
    seeds, logits, odds = judged()
    for targets in (
        seed_targets(seeds, logits, odds, SETTINGS, active=False, at_least=1),
        seed_targets(seeds, logits, -odds, SETTINGS, active=True, at_least=1),
    ):
        assert targets.keep.all() and torch.equal(targets.dual_labels, seeds.labels)


def test_no_class_is_left_without_seeds() -> None:
    seeds, logits, odds = judged()
    odds[6:] -= 9  # the third class is called unclean as a whole
    targets = seed_targets(seeds, logits, odds, SETTINGS, active=True, at_least=1)
    assert torch.bincount(targets.labels[targets.keep], minlength=3).min() == 1
    assert targets.separation < 1


def test_targets_are_found_by_rank() -> None:
    targets = seed_targets(*judged(), SETTINGS, active=True, at_least=1)
    labels, keep, dual = targets.of(torch.tensor([70, 30, 40, 40]))
    assert labels.tolist() == [2, 0, 1, 1] and keep.tolist() == [False, True, False, False]
    assert dual.tolist() == [0, 0, 2, 2]


def test_taught_targets_hold_the_kept_labels_alone() -> None:
    lesson = Lesson(torch.tensor([1, 0, 1, 2]), torch.tensor([True, False, True, True]))
    targets = taught_targets(lesson, 3)
    assert targets.ranks.tolist() == [0, 2, 3] and targets.labels.tolist() == [1, 1, 2]
    assert targets.adjustment.exp().tolist() == pytest.approx([1 / 6, 3 / 6, 2 / 6])


def test_masked_cross_entropy_equals_a_naive_loop() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label, keep = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([True, False, True, True, False, False])
    each = [-math.log(torch.softmax(logits[i], 0)[label[i]]) for i in range(6) if keep[i]]
    assert masked_cross_entropy(logits, label, keep).item() == pytest.approx(sum(each) / 3)


def test_masked_cross_entropy_of_nothing_is_zero_with_finite_gradients() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.bool))
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
