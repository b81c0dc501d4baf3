"""Pseudo-labels, in one type from the seeds to the loss, and a model's predictions for all images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from coft.core.schemas import SchemaError
from coft.core.table import Table


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels that a model is trained on.

    Attributes:
        index: Indices of the images in the pool. Shape (n,).
        label: Pseudo-labels. Shape (n,).
        weight: Weights in the classification loss, from 0 to 1. Shape (n,).
    """

    index: Tensor
    label: Tensor
    weight: Tensor

    @classmethod
    def unweighted(cls, index: Tensor, label: Tensor) -> PseudoLabels:
        """Create labels of weight 1, from image indices and labels of shape (n,) each."""
        return cls(index, label, torch.ones(len(label)))

    @classmethod
    def of_pool(cls, label: Tensor, weight: Tensor | None = None) -> PseudoLabels:
        """Create labels of all images of the pool, with weight 1 unless weights (bool or float) are given."""
        labels = cls.unweighted(torch.arange(len(label)), label)
        return labels if weight is None else labels.with_weights(weight)

    def check(self, images: int, classes: int) -> None:
        """Check that indices, labels and shapes fit a pool of `images` images and `classes` classes.

        Raises:
            SchemaError: If they do not.
        """
        count = len(self.index)
        for name, values, below in (("index", self.index, images), ("label", self.label, classes)):
            if not ((values >= 0) & (values < below)).all():
                raise SchemaError(f"has a value outside 0 to {below - 1}", f"{name} of pseudo-labels")
        if {tuple(part.shape) for part in (self.index, self.label, self.weight)} != {(count,)}:
            raise SchemaError(f"are not {count} labels of {classes} classes", "pseudo-labels")

    @property
    def keep(self) -> Tensor:
        """Mask of the labels whose weight is above 1/2: more likely right than not. Shape (n,), bool."""
        return self.weight > 0.5

    def with_weights(self, weight: Tensor) -> PseudoLabels:
        """Return the same labels with other weights, shape (n,), bool or float."""
        return replace(self, weight=weight.float() if weight.dtype is torch.bool else weight)

    def nonzero(self) -> PseudoLabels:
        """Return the labels whose weight is above 0."""
        return self.at(torch.nonzero(self.weight).flatten())

    def at(self, position: Tensor | slice) -> PseudoLabels:
        """Return the labels at some positions, in their order."""
        return PseudoLabels(self.index[position], self.label[position], self.weight[position])

    def of(self, index: Tensor) -> PseudoLabels:
        """Return the labels of the images with some pool indices, in their order. Each image must have a label."""
        order, ordered = self._sorted
        return self.at(order[torch.searchsorted(ordered, index)])

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        order = torch.argsort(self.index)
        return order, self.index[order]

    def alternate(self, start: int, num_classes: int) -> PseudoLabels:
        """Return every other label of each class, class by class, without reordering a class.

        Args:
            start: 0 for the first label of each class, the third and so on; 1 for the others.
            num_classes: C.
        """
        positions = [torch.nonzero(self.label == c).flatten()[start::2] for c in range(num_classes)]
        return self.at(torch.cat(positions))

    def log_frequency(self, num_classes: int) -> Tensor:
        """Compute log class frequencies of the weighted labels, with add-one smoothing. Shape (C,)."""
        counts = torch.ones(num_classes, dtype=torch.float64).index_add_(0, self.label, self.weight.double())
        return (counts / counts.sum()).log().float()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {"index": self.index, "label": self.label, "weight": self.weight}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> PseudoLabels:
        """Create labels from the result of `state_dict`."""
        return cls(**state)


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for all images of the pool.

    Attributes:
        label: Predicted labels. Shape (N,).
        probability: Softmax probability of every class, without the negative vectors. Shape (N, C).
        clean: p_clean of every class. Shape (N, C).
    """

    label: Tensor
    probability: Table
    clean: Table

    @cached_property
    def confidence(self) -> Tensor:
        """Softmax probability of the predicted labels. Shape (N,)."""
        return self.probability_of(self.label)

    @cached_property
    def margin(self) -> Tensor:
        """Softmax probability of the predicted labels minus the highest of another class. Shape (N,)."""
        first, second = self.probability.map(lambda rows: rows.topk(2, dim=1).values).all().unbind(dim=1)
        return self.confidence - torch.where(self.confidence == first, second, first)

    def probability_of(self, label: Tensor) -> Tensor:
        """Return the softmax probability of a given label of each image. Shape (N,)."""
        return at_label(self.probability, label)

    def p_clean(self, label: Tensor) -> Tensor:
        """Return p_clean of a given label of each image. Shape (N,)."""
        return at_label(self.clean, label)


def at_label(table: Table, label: Tensor) -> Tensor:
    """Return the entry of a table (N, C) at a given label of each image. Shape (N,)."""
    return table.map(lambda rows, labels: rows.gather(1, labels.unsqueeze(1)), label).all().squeeze(1)
