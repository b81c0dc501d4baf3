"""Spreading over a graph of neighbours, against naive loops and a linear solver."""

import math

import pytest
import torch
from torch import Tensor

from coft.labelling.neighbours import POWER, SHARE, NeighbourGraph, neighbour_count


def clusters(per_cluster: int = 8, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features in clusters, and the cluster of each."""
    source = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(classes, 16, generator=source), dim=1)
    label = torch.arange(classes).repeat(per_cluster)
    features = centres[label] + 0.15 * torch.randn(len(label), 16, generator=source)
    return torch.nn.functional.normalize(features, dim=1), label


def naive_edges(features: Tensor, count: int) -> Tensor:
    x = features - features.mean(dim=0)
    x = (x / x.norm(dim=1, keepdim=True)).double()
    size = len(x)
    adjacency = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        others = sorted((j for j in range(size) if j != i), key=lambda j: -float(x[i] @ x[j]))
        for j in others[:count]:
            weight = max(0.0, float(x[i] @ x[j])) ** POWER
            adjacency[i, j] += weight
            adjacency[j, i] += weight
    degree = adjacency.sum(dim=1)
    return torch.stack(
        [
            torch.stack([adjacency[i, j] / math.sqrt(max(degree[i] * degree[j], 1e-24)) for j in range(size)])
            for i in range(size)
        ]
    )


def naive_smooth(features: Tensor, count: int, values: Tensor) -> Tensor:
    """What values spread to in the end, divided by what becomes of ones."""
    edges, ones = naive_edges(features, count), torch.ones(len(values), 1, dtype=torch.float64)
    own = torch.cat([values.double(), ones], dim=1)
    solved = torch.linalg.solve(torch.eye(len(own), dtype=torch.float64) - SHARE * edges, (1 - SHARE) * own)
    return solved[:, :-1] / solved[:, -1:]


@pytest.mark.parametrize("count", [1, 3])
def test_the_graph_and_its_fixed_point(count: int) -> None:
    features, _ = clusters()
    graph = NeighbourGraph(features, count)
    expected = naive_edges(features, count)
    torch.testing.assert_close(graph.edges.to_dense(), expected, atol=1e-6, rtol=1e-5)
    logits = torch.randn(len(features), 3, generator=torch.Generator().manual_seed(1))
    solved = naive_smooth(features, count, logits.softmax(dim=1))
    torch.testing.assert_close(graph.spread(logits).exp(), solved, atol=3e-3, rtol=0)
    torch.testing.assert_close(graph.smooth(logits), naive_smooth(features, count, logits), atol=1e-2, rtol=0)


def test_a_wrong_label_among_right_ones_is_outvoted() -> None:
    features, label = clusters()
    logits = 4.0 * torch.nn.functional.one_hot(label, 3).float()
    logits[0] = torch.tensor([0.0, 6.0, 0.0])
    found = NeighbourGraph(features, 4).spread(logits)
    assert torch.equal(found.argmax(dim=1), label)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(len(label), dtype=torch.float64))


def test_images_that_are_no_anchors_read_from_those_that_are() -> None:
    features, label = clusters(per_cluster=20)
    logits = 2.0 * torch.nn.functional.one_hot(label, 3).float()
    logits += torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    graph = NeighbourGraph(features, 3, anchors=25)
    found = graph.spread(logits)
    assert len(graph.anchors.unique()) == 25 and graph.edges.shape == (25, 25)
    known = graph.smooth_anchors(logits.softmax(dim=1))
    torch.testing.assert_close(found[graph.anchors].exp(), known)
    x = features - features.mean(dim=0)
    x = x / x.norm(dim=1, keepdim=True)
    for image in sorted(set(range(len(features))) - set(graph.anchors.tolist())):
        similar = x[graph.anchors] @ x[image]
        best = sorted(range(25), key=lambda j: -float(similar[j]))[:3]
        weights = [max(0.0, float(similar[j])) ** POWER for j in best]
        near = sum(w * known[j] for w, j in zip(weights, best, strict=True)) / sum(weights)
        expected = SHARE * near + (1 - SHARE) * logits[image].double().softmax(dim=0)
        torch.testing.assert_close(found[image].exp(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_few_images_and_equal_images_work(size: int) -> None:
    features = torch.ones(size, 4) / 2
    found = NeighbourGraph(features, 5).spread(torch.eye(size, 3))
    assert found.isfinite().all() and found.shape == (size, 3)
    assert torch.equal(found.argmax(dim=1), torch.arange(size))


@pytest.mark.parametrize(("images", "classes", "expected"), [(2000, 10, 10), (1182, 80, 4), (560, 129, 2), (5, 9, 1)])
def test_number_of_neighbours(images: int, classes: int, expected: int) -> None:
    assert neighbour_count(images, classes) == expected
