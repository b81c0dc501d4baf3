"""Images that look alike share their labels: probabilities spread over a graph of nearest neighbours.

Label propagation (Zhou et al., NeurIPS 2003), which ZLaP (CVPR 2024) brought to CLIP. The graph is made of image
features alone, so it is a second witness beside the text: a wrong label among right ones is outvoted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.table import Table

SHARE = 0.8  # of an image's neighbours in its probabilities; the rest is its own
STEPS = 30  # 0.8^30 is a thousandth: what further steps would change
MOST = 10  # neighbours of an image
POWER = 3  # of the cosine, in the weight of an edge
COLUMNS = 128  # that spread at a time: classes do not meet, and few stay in the cache
ANCHORS = 20_000  # images that are anyone's neighbours; with more, the time would grow with their square


def neighbour_count(images: int, classes: int) -> int:
    """How many neighbours an image has: the root of N / C, so that most of them can be of its class; from 1 to 10."""
    return max(1, min(MOST, round(math.sqrt(images / classes))))


@dataclass(frozen=True)
class Anchors:
    """Images that can be neighbours, as others compare themselves with them.

    Attributes:
        mean: Of the features of all images: what all share tells none of them apart. Shape (k,).
        features: Of the anchors, less the mean, of unit length. Shape (anchors, k).
        count: Neighbours of an image.
    """

    mean: Tensor
    features: Tensor
    count: int

    def shares(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of whom the values of images are made that have spread to them.

        Args:
            features: Of the images. Shape (n, k).

        Returns:
            Shares of the nearest anchors and their numbers, shape (n, count) each; the share of an image's own values,
            shape (n, 1). All shares of an image together are 1.
        """
        cosine, numbers = nearest(centred(features, self.mean), self.features, self.count)
        weight = cosine.double().clamp_min(0) ** POWER
        weight = SHARE * weight / weight.sum(dim=1, keepdim=True).clamp_min(1e-12)
        total = weight.sum(dim=1, keepdim=True) + 1 - SHARE
        return weight / total, numbers, (1 - SHARE) / total


class NeighbourGraph:
    """A graph of images, with an edge to each one's nearest neighbours.

    It is symmetric and normalised: D^-1/2 A D^-1/2, where a_ij = max(0, cos)^3 for each of the two that has the other
    as its neighbour. Of more than `most` images, so many, evenly spaced, make up the graph; the others only read from
    their neighbours among them.

    Args:
        features: Of all images. Shape (N, k).
        count: Neighbours of an image.
        most: Images of the graph, at most.

    Attributes:
        index: The images of the graph. Shape (anchors,).
        anchors: What others compare themselves with.
    """

    def __init__(self, features: Table, count: int, most: int = ANCHORS) -> None:
        images = len(features)
        size = min(images, most)
        self.index = torch.arange(size) * images // max(1, size)
        mean = features.mean()
        of_graph = centred(features.at(self.index), mean)
        self.anchors = Anchors(mean, of_graph, min(count, max(1, size - 1)))
        self._edges = _normalised(*nearest(of_graph, of_graph, self.anchors.count, torch.arange(size)))
        self._shares = None if size == images else self._shares_of(features)

    def _shares_of(self, features: Table) -> tuple[Tensor, Tensor, Tensor]:
        """Of whom an image's values are made: shares of anchors, their numbers, and the share of its own values."""
        count = self.anchors.count
        rows = features.map(lambda x: torch.cat([*self.anchors.shares(x)], dim=1).float()).all()  # exact to 2^24
        shares, numbers, rest = rows.split([count, count, 1], dim=1)
        of_anchor = torch.zeros(len(rows), dtype=torch.bool).scatter(0, self.index, True).unsqueeze(1)
        place = torch.zeros(len(rows)).scatter(0, self.index, torch.arange(len(self.index)).float()).unsqueeze(1)
        first = torch.arange(count) == 0  # an anchor has its own value, which has spread already
        shares = torch.where(of_anchor, first.float(), shares)
        numbers = torch.where(of_anchor, place, numbers).int()
        return shares, numbers, torch.where(of_anchor, 0.0, rest)

    def smooth(self, values: Table) -> Table:
        """Let values spread over the graph: s = a W s + (1 - a) v, divided by what becomes of ones.

        Args:
            values: v, of all images. Shape (N, C).

        Returns:
            s, shape (N, C), of the type of v. Each is a weighted mean of values, so rows of sum 1 keep it.
        """
        start = values.at(self.index)
        smooth = self.smooth_anchors(start)
        if self._shares is None:
            return Table.of(smooth.to(start.dtype))
        return values.map(lambda rows, s, n, rest: read(smooth, s, n, rest, rows).to(rows.dtype), *self._shares)

    def smooth_anchors(self, values: Tensor) -> Tensor:
        """Values of the images of the graph after they have spread. Shape (anchors, C), fp64."""
        ones = self._diffuse(torch.ones(len(values), 1, dtype=torch.float64))
        columns = values.split(COLUMNS, dim=1)
        return torch.cat([self._diffuse(column.double()) / ones for column in columns], dim=1)

    def _diffuse(self, start: Tensor) -> Tensor:
        current = start
        for _ in range(STEPS):
            current = SHARE * (self._edges @ current) + (1 - SHARE) * start
        return current

    def spread(self, logits: Table) -> Table:
        """Probabilities of logits, shape (N, C), after they have spread. Shape (N, C), fp64."""
        return self.smooth(logits.map(lambda rows: rows.double().softmax(dim=1)))


def log_of(probability: Table) -> Table:
    """Log of probabilities, which are 1e-30 at least."""
    return probability.map(lambda rows: rows.clamp_min(1e-30).log())


def read(smooth: Tensor, shares: Tensor, numbers: Tensor, own_share: Tensor, values: Tensor) -> Tensor:
    """Values of images after they have spread: of their neighbours' and their own.

    Args:
        smooth: Values of the anchors, which have spread. Shape (anchors, C).
        shares: Of the anchors; see `Anchors.shares`. Shape (n, count).
        numbers: Numbers of the anchors. Shape (n, count).
        own_share: Of an image's own values. Shape (n, 1).
        values: Of the images. Shape (n, C).

    Returns:
        Shape (n, C), fp64.
    """
    near = F.embedding_bag(numbers.long(), smooth, per_sample_weights=shares.to(smooth), mode="sum")
    return near + own_share * values.double()


def centred(features: Tensor, mean: Tensor) -> Tensor:
    """Features less their mean, of unit length. Shape (n, k), like `features`."""
    return F.normalize(features.float() - mean, dim=1)


def nearest(features: Tensor, anchors: Tensor, count: int, number: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest of some images by cosine.

    Args:
        features: Of unit length. Shape (n, k).
        anchors: Those that can be nearest. Of unit length. Shape (m, k).
        count: How many.
        number: Number of each image among the anchors, which is left out. Shape (n,).

    Returns:
        Cosines and numbers, nearest first. Shape (n, count) each.
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
    weight = cosine.flatten().double().clamp_min(0) ** POWER
    places = torch.stack([torch.cat([rows, columns]), torch.cat([columns, rows])])
    edges = torch.sparse_coo_tensor(
        places, torch.cat([weight, weight]), (size, size), check_invariants=False
    ).coalesce()
    (rows, columns), values = edges.indices(), edges.values()
    root = torch.zeros(size, dtype=torch.float64).index_add(0, rows, values).clamp_min(1e-12).rsqrt()
    values = values * root[rows] * root[columns]
    return torch.sparse_coo_tensor(edges.indices(), values, edges.shape, is_coalesced=True, check_invariants=False)
