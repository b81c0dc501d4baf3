from __future__ import annotations

import math

import pytest
import torch

from trainers.parts.diagnostics import Diagnostics

TRUTH = [0, 1, 2, 0, -1]
LABELS = torch.tensor([0, 1, 1, 2, 0])


def test_accuracy_counts_images_with_a_known_label() -> None:
    d = Diagnostics(TRUTH)
    assert d.accuracy(torch.arange(5), LABELS) == 0.5
    assert d.accuracy(torch.tensor([3, 0, 4]), torch.tensor([0, 0, 0])) == 1.0
    assert math.isnan(d.accuracy(torch.tensor([4]), torch.tensor([0])))


def test_recall_is_the_share_of_right_labels_that_are_kept() -> None:
    keep = torch.tensor([True, False, True, True, True])
    assert Diagnostics(TRUTH).recall(LABELS, keep) == 0.5
    assert math.isnan(Diagnostics([-1] * 5).recall(LABELS, keep))


def test_auroc_equals_counted_pairs() -> None:
    score = torch.tensor([0.9, 0.4, 0.5, 0.1, 0.7])
    right, wrong = [0.9, 0.4], [0.5, 0.1]
    expected = sum(r > w for r in right for w in wrong) / 4
    assert Diagnostics(TRUTH).auroc(score, LABELS) == pytest.approx(expected)
    assert math.isnan(Diagnostics(LABELS).auroc(score, LABELS))
    assert math.isnan(Diagnostics([-1] * 5).auroc(score, LABELS))
