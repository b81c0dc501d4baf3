"""Images that look alike share their labels: probabilities spread over a graph of nearest neighbours.

Label propagation (Zhou et al., NeurIPS 2003), which ZLaP (CVPR 2024) brought to CLIP. The graph is made of image
features alone, so it is a second witness beside the text: a wrong label among right ones is outvoted.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.tables import Allocate, Rows, chunks, in_memory, map_rows
from coft.core.world import ALONE, World

SHARE = 0.8  # of an image's neighbours in its probabilities; the rest is its own
STEPS = 30  # 0.8^30 is a thousandth: what further steps would change
MOST = 10  # neighbours of an image
POWER = 3  # of the cosine, in the weight of an edge
ANCHORS = 20_000  # images that are anyone's neighbours; with more, the time would grow with their square


def neighbour_count(images: int, classes: int) -> int:
    """How many neighbours an image has: the root of N / C, so that most of them can be of its class; from 1 to 10."""
    return max(1, min(MOST, round(math.sqrt(images / classes))))


class NeighbourGraph:
    """A graph of images, with an edge to each one's nearest neighbours.

    It is symmetric and normalised: D^-1/2 A D^-1/2, where a_ij = max(0, cos)^3 for each of the two that has the other
    as its neighbour. Of more than `anchors` images, so many, evenly spaced, make up the graph; the others only read
    from their neighbours among them.

    Args:
        features: Of all images. They are centred: what all images share tells none of them apart. Shape (N, k).
        count: Neighbours of an image.
        anchors: See above.
        world: Its ranks have a part of the rows each, of features and of all values.
    """

    def __init__(self, features: Tensor, count: int, anchors: int = ANCHORS, world: World = ALONE) -> None:
        self.world, self.images = world, world.total(len(features))
        size = min(self.images, anchors)
        self.anchors = torch.arange(size) * self.images // max(1, size)
        self.mean = world.mean(features.float())
        self.known = centred(world.take(features, self.anchors, self.images), self.mean)
        self.count = min(count, max(1, size - 1))
        part = world.part(size)
        edges = nearest(self.known[part], self.known, self.count, torch.arange(size)[part])
        self.edges = _normalised(*map(world.gather, edges))
        self._others = None if size == self.images else self.weights(features)

    def weights(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Weights, of sum 1 or 0, and numbers of the nearest anchors of images. Shape (n, count) each.

        Args:
            features: Shape (n, k).
        """
        return weights_of(features, self.mean, self.known, self.count)

    def smooth(self, values: Tensor, allocate: Allocate = in_memory) -> Tensor:
        """Let values spread over the graph: s = a W s + (1 - a) v, divided by what becomes of ones.

        Args:
            values: v, of all images. Shape (N, C).
            allocate: Makes the table.

        Returns:
            s, shape (N, C), fp64. Each is a weighted mean of values, so rows of sum 1 keep it.
        """
        known = self.smooth_anchors(values)
        if self._others is None:
            return known[self.world.part(len(known))]
        result = Rows(len(values), allocate)
        for rows, weight, index in chunks(values, *self._others):
            result.add(read(known, weight, index, rows))
        table = result.table()
        which, place = self.world.own(self.anchors, self.images)
        table[place] = known[which]
        return table

    def smooth_anchors(self, values: Tensor) -> Tensor:
        """Values of the anchors after that, from values of all images. Shape (anchors, C), fp64."""
        own = self.world.take(values, self.anchors, self.images).double()
        own = torch.cat([own, torch.ones(len(own), 1, dtype=torch.float64)], dim=1)
        current = own
        for _ in range(STEPS):
            current = SHARE * (self.edges @ current) + (1 - SHARE) * own
        return current[:, :-1] / current[:, -1:]

    def spread(self, logits: Tensor, allocate: Allocate = in_memory) -> Tensor:
        """Log of the probabilities of logits, shape (N, C), after these have spread. Shape (N, C), fp64."""
        probabilities = map_rows(lambda rows: rows.double().softmax(dim=1), logits, allocate=allocate)
        return log_(self.smooth(probabilities, allocate))


def log_(probabilities: Tensor) -> Tensor:
    """Log of probabilities, at least of 1e-30, in place."""
    for (rows,) in chunks(probabilities):
        rows.clamp_min_(1e-30).log_()
    return probabilities


def centred(features: Tensor, mean: Tensor) -> Tensor:
    """Features less their mean, of unit length. Shape as of `features`."""
    return F.normalize(features.float() - mean, dim=1)


def weights_of(features: Tensor, mean: Tensor, known: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """See `NeighbourGraph.weights`; the graph has `mean`, `known` and `count`."""
    parts = [nearest(centred(rows, mean), known, count) for (rows,) in chunks(features)]
    cosine, index = (torch.cat(part) for part in zip(*parts, strict=True))
    weight = cosine.double().clamp_min(0) ** POWER
    return weight / weight.sum(dim=1, keepdim=True).clamp_min(1e-12), index


def read(known: Tensor, weight: Tensor, index: Tensor, own: Tensor) -> Tensor:
    """Values of images that are no anchors: of their neighbours' and their own, as `NeighbourGraph.smooth` has it.

    Args:
        known: s of the anchors. Shape (anchors, C).
        weight: See `NeighbourGraph.weights`. Shape (n, count).
        index: Likewise.
        own: Values of the images. Shape (n, C).

    Returns:
        Shape (n, C), fp64.
    """
    near = torch.zeros_like(own, dtype=torch.float64)
    for share, place in zip(weight.unbind(dim=1), index.unbind(dim=1), strict=True):  # one by one, for memory
        near += share.unsqueeze(1) * known[place]
    total = SHARE * weight.sum(dim=1, keepdim=True) + 1 - SHARE
    return (SHARE * near + (1 - SHARE) * own.double()) / total


def nearest(features: Tensor, known: Tensor, count: int, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest of some known images by cosine, a few rows at a time.

    Args:
        features: Of unit length. Shape (n, k).
        known: Likewise. Shape (m, k).
        count: How many.
        own: Number of each image among the known ones, which is left out. Shape (n,).

    Returns:
        Cosines and numbers, nearest first. Shape (n, count) each.
    """
    cosine, index = [], []
    for rows, *mine in chunks(features, *([] if own is None else [own])):
        similar = rows @ known.t()
        if mine:
            similar.scatter_(1, mine[0].unsqueeze(1), -1.0)
        best = similar.topk(count, dim=1)
        cosine.append(best.values)
        index.append(best.indices)
    return torch.cat(cosine), torch.cat(index)


def _normalised(cosine: Tensor, index: Tensor) -> Tensor:
    size, count = index.shape
    rows, columns = torch.arange(size).repeat_interleave(count), index.flatten()
    weight = cosine.flatten().double().clamp_min(0) ** POWER
    places = torch.stack([torch.cat([rows, columns]), torch.cat([columns, rows])])
    edges = torch.sparse_coo_tensor(
        places, torch.cat([weight, weight]), (size, size), check_invariants=False
    ).coalesce()
    (rows, columns), values = edges.indices(), edges.values()
    root = torch.zeros(size, dtype=torch.float64).index_add_(0, rows, values).clamp_min(1e-12).rsqrt()
    values = values * root[rows] * root[columns]
    return torch.sparse_coo_tensor(edges.indices(), values, edges.shape, is_coalesced=True, check_invariants=False)
