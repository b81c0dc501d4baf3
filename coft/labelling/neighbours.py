"""Label propagation: class probabilities spread over a graph of nearest neighbours, so that similar images share them.

The method is that of Zhou et al. (NeurIPS 2003), which ZLaP (CVPR 2024) applied to CLIP. The graph is built from image
features alone, so it is evidence besides the text: a wrong label among right ones is outvoted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.table import Table

ALPHA = 0.8  # weight of the neighbours in an image's probabilities; the rest is its own
STEPS = 30  # iterations; further ones would change about 0.8^30, a thousandth
MAX_NEIGHBOURS = 10  # maximum number of neighbours of an image
COSINE_POWER = 3  # exponent of the cosine in the weight of an edge
CLASS_CHUNK = 128  # classes that spread at a time: they are independent, and a few columns stay in the cache
ANCHORS = 20_000  # maximum number of images that can be neighbours: time grows with its square


def neighbour_count(images: int, classes: int) -> int:
    """Return the number of neighbours of an image: sqrt(N / C), so that most can be of its class; from 1 to 10."""
    return max(1, min(MAX_NEIGHBOURS, round(math.sqrt(images / classes))))


@dataclass(frozen=True)
class Anchors:
    """The images that can be neighbours (anchors), as centred features with which other images are compared.

    Attributes:
        mean: Mean feature of all images, which is subtracted because it tells no images apart. Shape (k,).
        features: Features of the anchors less the mean, scaled to unit length. Shape (anchors, k).
        count: Number of neighbours of an image.
    """

    mean: Tensor
    features: Tensor
    count: int

    def shares(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the shares with which anchors' values and an image's own are mixed into its spread values.

        Args:
            features: Image features. Shape (n, k).

        Returns:
            Shares of the nearest anchors and indices of these anchors, shape (n, count) each; the share of an image's
            own values, shape (n, 1). The shares of an image sum to 1.
        """
        cosine, numbers = nearest(centred(features, self.mean), self.features, self.count)
        weight = cosine.double().clamp_min(0) ** COSINE_POWER
        weight = ALPHA * weight / weight.sum(dim=1, keepdim=True).clamp_min(1e-12)
        total = weight.sum(dim=1, keepdim=True) + 1 - ALPHA
        return weight / total, numbers, (1 - ALPHA) / total


class NeighbourGraph:
    """Graph of images, with an edge from each image to its nearest neighbours.

    The graph is symmetric and normalised: D^-1/2 A D^-1/2, where a_ij adds up max(0, cos)^3 for each of the two images
    that has the other as a neighbour. If there are more than `most` images, the graph consists of `most` evenly spaced
    ones, and the others only read from their neighbours among these.

    Args:
        features: Features of all images. Shape (N, k).
        count: Number of neighbours of an image.
        most: Maximum number of images in the graph.

    Attributes:
        index: Indices of the images in the graph. Shape (anchors,).
        anchors: The images of the graph, with which others are compared.
    """

    def __init__(self, features: Table, count: int, most: int = ANCHORS) -> None:
        images = len(features)
        self.index = evenly_spaced(images, most)
        size = len(self.index)
        mean = features.mean()
        of_graph = centred(features.at(self.index), mean)
        self.anchors = Anchors(mean, of_graph, min(count, max(1, size - 1)))
        self._edges = _normalised(*nearest(of_graph, of_graph, self.anchors.count, torch.arange(size)))
        self._shares = None if size == images else self._shares_of(features)

    def _shares_of(self, features: Table) -> tuple[Tensor, Tensor, Tensor]:
        """Compute `Anchors.shares` of all images; an anchor has its own spread value with share 1."""
        count = self.anchors.count
        rows = features.map(lambda x: torch.cat([*self.anchors.shares(x)], dim=1).float()).all()  # fp32: exact to 2^24
        shares, numbers, rest = rows.split([count, count, 1], dim=1)
        of_anchor = torch.zeros(len(rows), dtype=torch.bool).scatter(0, self.index, True).unsqueeze(1)
        place = torch.zeros(len(rows)).scatter(0, self.index, torch.arange(len(self.index)).float()).unsqueeze(1)
        first = torch.arange(count) == 0  # an anchor's own value has already spread
        shares = torch.where(of_anchor, first.float(), shares)
        numbers = torch.where(of_anchor, place, numbers).int()
        return shares, numbers, torch.where(of_anchor, 0.0, rest)

    def smooth(self, values: Table) -> Table:
        """Spread values over the graph: s = a W s + (1 - a) v, divided by the result for a vector of ones.

        Args:
            values: v, the values of all images. Shape (N, C).

        Returns:
            s, shape (N, C), in the dtype of v. Each row is a weighted mean of rows of v, so sums of 1 are kept.
        """
        start = values.at(self.index)
        smooth = self.smooth_anchors(start)
        if self._shares is None:
            return Table.of(smooth.to(start.dtype))
        return values.map(lambda rows, s, n, rest: read(smooth, s, n, rest, rows).to(rows.dtype), *self._shares)

    def smooth_anchors(self, values: Tensor) -> Tensor:
        """Spread values of the images in the graph. Shape (anchors, C), fp64."""
        ones = self._diffuse(torch.ones(len(values), 1, dtype=torch.float64))
        columns = values.split(CLASS_CHUNK, dim=1)
        return torch.cat([self._diffuse(column.double()) / ones for column in columns], dim=1)

    def _diffuse(self, start: Tensor) -> Tensor:
        current = start
        for _ in range(STEPS):
            current = ALPHA * (self._edges @ current) + (1 - ALPHA) * start
        return current

    def spread(self, logits: Table) -> Table:
        """Convert logits of all images to probabilities, and spread them. Shape (N, C), fp64."""
        return self.smooth(logits.map(lambda rows: rows.double().softmax(dim=1)))


def evenly_spaced(images: int, most: int) -> Tensor:
    """Return the indices of at most `most` evenly spaced images."""
    size = min(images, most)
    return torch.arange(size) * images // max(1, size)


def log_of(probability: Table) -> Table:
    """Return the log of probabilities, clamped to at least 1e-30."""
    return probability.map(lambda rows: rows.clamp_min(1e-30).log())


def read(smooth: Tensor, shares: Tensor, numbers: Tensor, own_share: Tensor, values: Tensor) -> Tensor:
    """Mix the spread values of an image's anchors with its own values; see `Anchors.shares`.

    Args:
        smooth: Spread values of the anchors. Shape (anchors, C).
        shares: Shares of the nearest anchors. Shape (n, count).
        numbers: Indices of these anchors. Shape (n, count).
        own_share: Share of an image's own values. Shape (n, 1).
        values: Own values of the images. Shape (n, C).

    Returns:
        Spread values of the images. Shape (n, C), fp64.
    """
    near = F.embedding_bag(numbers.long(), smooth, per_sample_weights=shares.to(smooth), mode="sum")
    return near + own_share * values.double()


def centred(features: Tensor, mean: Tensor) -> Tensor:
    """Subtract the mean from features, and scale them to unit length. Shape (n, k)."""
    return F.normalize(features.float() - mean, dim=1)


def nearest(features: Tensor, anchors: Tensor, count: int, number: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Find the nearest anchors of each image by cosine.

    Args:
        features: Image features of unit length. Shape (n, k).
        anchors: Features of the anchors, of unit length. Shape (m, k).
        count: Number of anchors to find.
        number: Index of each image among the anchors, where it is excluded from its own neighbours. Shape (n,).

    Returns:
        Cosines and indices of the anchors, nearest first. Shape (n, count) each.
    """

    def rows(batch: Tensor, *numbers: Tensor) -> Tensor:
        similar = batch @ anchors.t()
        if numbers:
            similar = similar.scatter(1, numbers[0].unsqueeze(1), -1.0)
        best = similar.topk(count, dim=1)
        return torch.cat([best.values.double(), best.indices.double()], dim=1)

    best = Table.of(features).map(rows, *([] if number is None else [number])).all()
    return best[:, :count].to(features.dtype), best[:, count:].long()


def _normalised(cosine: Tensor, index: Tensor) -> Tensor:
    size, count = index.shape
    rows, columns = torch.arange(size).repeat_interleave(count), index.flatten()
    weight = cosine.flatten().double().clamp_min(0) ** COSINE_POWER
    places = torch.stack([torch.cat([rows, columns]), torch.cat([columns, rows])])
    edges = torch.sparse_coo_tensor(
        places, torch.cat([weight, weight]), (size, size), check_invariants=False
    ).coalesce()
    (rows, columns), values = edges.indices(), edges.values()
    root = torch.zeros(size, dtype=torch.float64).index_add(0, rows, values).clamp_min(1e-12).rsqrt()
    values = values * root[rows] * root[columns]
    return torch.sparse_coo_tensor(edges.indices(), values, edges.shape, is_coalesced=True, check_invariants=False)
