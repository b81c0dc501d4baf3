"""Label propagation on a graph of neighbours against naive loops and a linear solver."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coft.core.table import Table
from coft.labelling import neighbours
from coft.labelling.neighbours import ALPHA, COSINE_POWER, NeighbourGraph, neighbour_count
from tests.coft import naive
from tests.coft.toys import clusters


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("steps", "atol"), [(neighbours.STEPS, 3e-3), (300, 1e-6)])
def test_propagation_converges(count: int, steps: int, atol: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "STEPS", steps)
    features, _ = clusters(8, width=16, noise=0.15)
    graph = NeighbourGraph(Table.of(features), count)
    logits = torch.randn(len(features), 3, generator=torch.Generator().manual_seed(1))
    solved = naive.smooth(features, count, logits.softmax(dim=1))
    torch.testing.assert_close(graph.spread(Table.of(logits)).all(), solved, atol=atol, rtol=0)
    smooth = graph.smooth(Table.of(logits)).all()
    torch.testing.assert_close(smooth, naive.smooth(features, count, logits).float(), atol=3 * atol, rtol=0)


def features_and_logits() -> tuple[Tensor, Tensor]:
    """Features and logits of 60 images."""
    features, label = clusters(20, width=16, noise=0.15)
    logits = 2.0 * torch.nn.functional.one_hot(label, 3).float()
    return features, logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))


def test_other_images_average_their_nearest_anchors() -> None:
    features, logits = features_and_logits()
    graph = NeighbourGraph(Table.of(features), 3, most=25)
    spread, index = graph.spread(Table.of(logits)).all(), graph.index.tolist()
    assert len(set(index)) == 25
    values = graph.smooth_anchors(logits.softmax(dim=1)[index])
    torch.testing.assert_close(spread[index], values)
    x = features - features.mean(dim=0)
    x = x / x.norm(dim=1, keepdim=True)
    for image in sorted(set(range(len(features))) - set(index)):
        similar = x[index] @ x[image]
        best = sorted(range(25), key=lambda j: -float(similar[j]))[:3]
        weights = [max(0.0, float(similar[j])) ** COSINE_POWER for j in best]
        mean = sum(w * values[j] for w, j in zip(weights, best, strict=True)) / sum(weights)
        expected = ALPHA * mean + (1 - ALPHA) * logits[image].double().softmax(dim=0)
        torch.testing.assert_close(spread[image], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_few_and_equal_images_are_accepted(size: int) -> None:
    features = torch.ones(size, 4) / 2
    spread = NeighbourGraph(Table.of(features), 5).spread(Table.of(torch.eye(size, 3))).all()
    assert spread.isfinite().all() and spread.shape == (size, 3)
    assert torch.equal(spread.argmax(dim=1), torch.arange(size))


@pytest.mark.parametrize(("images", "classes", "expected"), [(2000, 10, 10), (1182, 80, 4), (560, 129, 2), (5, 9, 1)])
def test_number_of_neighbours(images: int, classes: int, expected: int) -> None:
    assert neighbour_count(images, classes) == expected
