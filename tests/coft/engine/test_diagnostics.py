from __future__ import annotations

import itertools
import math

import pytest
import torch

from coft.engine.diagnostics import Diagnostics

TRUTH = [0, 1, 2, 0, -1]
LABELS = torch.tensor([0, 1, 1, 2, 0])


def test_accuracy_counts_images_with_a_known_label() -> None:
    d = Diagnostics(TRUTH)
    assert d.accuracy(torch.arange(5), LABELS) == 0.5
    assert d.accuracy(torch.tensor([3, 0, 4]), torch.tensor([0, 0, 0])) == 1.0
    assert math.isnan(d.accuracy(torch.tensor([4]), torch.tensor([0])))


def test_cluster_accuracy_is_that_of_the_best_names() -> None:
    source = torch.Generator().manual_seed(3)
    for _ in range(20):
        truth = torch.randint(-1, 4, (12,), generator=source)
        labels = torch.randint(0, 4, (12,), generator=source)
        labelled = [(t, c) for t, c in zip(truth.tolist(), labels.tolist(), strict=True) if t >= 0]
        best = max(sum(names[c] == t for t, c in labelled) for names in itertools.permutations(range(4)))
        assert Diagnostics(truth).cluster_accuracy(labels) == pytest.approx(best / len(labelled))
    assert Diagnostics([0, 0, 1, 2]).cluster_accuracy(torch.tensor([2, 2, 0, 1])) == 1.0
    assert math.isnan(Diagnostics([-1] * 5).cluster_accuracy(LABELS))
