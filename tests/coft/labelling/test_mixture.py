"""Correction of scores by a mixture of Gaussians, against a naive loop."""

from __future__ import annotations

import pytest
import torch

from coft.core import table
from coft.core.table import Table
from coft.labelling.mixture import with_mixture
from tests.coft import naive
from tests.coft.toys import clusters


@pytest.mark.parametrize("fitted", [120, 30])
def test_corrected_scores_equal_a_naive_loop(fitted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, label = clusters()
    features = features.double()
    scores = torch.nn.functional.one_hot(label, 3) + torch.randn(120, 3, generator=torch.Generator().manual_seed(1))
    index = torch.arange(fitted) * 120 // fitted
    expected = naive.mixture(features, scores, index.tolist())
    corrected = with_mixture(Table.of(features), Table.of(scores), index).all()
    torch.testing.assert_close(corrected.softmax(dim=1), expected, atol=1e-5, rtol=1e-4)
    with monkeypatch.context() as patch:
        patch.setattr(table, "ROWS", 7)
        in_parts = with_mixture(Table.of(features), Table.of(scores), index).all()
    torch.testing.assert_close(in_parts, corrected)


def test_a_class_that_is_predicted_as_another_is_recovered() -> None:
    features, label = clusters(100, width=256, noise=0.05)
    scores = 2.0 * torch.nn.functional.one_hot(label, 3).float()
    scores[label == 2] = torch.tensor([0.0, 1.0, 0.9])  # another class is slightly likelier
    assert (scores.argmax(dim=1) == label).float().mean() < 0.7
    corrected = with_mixture(Table.of(features), Table.of(scores), torch.arange(300)).all()
    assert (corrected.argmax(dim=1) == label).float().mean() > 0.9


@pytest.mark.parametrize("size", [1, 2])
def test_one_or_two_images_are_enough(size: int) -> None:
    corrected = with_mixture(Table.of(torch.ones(size, 4) / 2), Table.of(torch.eye(size, 3)), torch.arange(size)).all()
    assert corrected.isfinite().all() and torch.equal(corrected.argmax(dim=1), torch.arange(size))
