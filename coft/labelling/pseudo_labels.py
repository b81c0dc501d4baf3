"""Pseudo-labels: one type from the seeds to the loss; and what a model predicts for all images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from coft.core.forms import Misfit
from coft.core.table import Table


@dataclass(frozen=True)
class PseudoLabels:
    """Labels that a model is trained on.

    Attributes:
        index: Which images of the pool. Shape (n,).
        label: Shape (n,).
        weight: How much each counts in the classification loss, from 0 to 1. Shape (n,).
        dual: Labels of the dual loss, which may be others. Shape (n,).
    """

    index: Tensor
    label: Tensor
    weight: Tensor
    dual: Tensor

    @classmethod
    def certain(cls, index: Tensor, label: Tensor) -> PseudoLabels:
        """Labels that all count in full. Shape (n,) each."""
        return cls(index, label, torch.ones(len(label)), label)

    @classmethod
    def of_pool(cls, label: Tensor, weight: Tensor | None = None) -> PseudoLabels:
        """A label of every image of the pool, which counts in full unless there are weights (bool or float)."""
        labels = cls.certain(torch.arange(len(label)), label)
        return labels if weight is None else labels.with_weights(weight)

    def check(self, images: int, classes: int) -> None:
        """See that they are labels of so many images and classes.

        Raises:
            Misfit: If they are not.
        """
        count = len(self.index)
        for name, values, below in (("index", self.index, images), ("label", self.label, classes)):
            if not ((values >= 0) & (values < below)).all():
                raise Misfit(f"has a number that is not below {below}", f"{name} of pseudo-labels")
        shapes = {tuple(part.shape) for part in (self.index, self.label, self.weight, self.dual)}
        if shapes != {(count,)} or not ((self.dual >= 0) & (self.dual < classes)).all():
            raise Misfit(f"are not {count} labels of {classes} classes", "pseudo-labels")

    @property
    def keep(self) -> Tensor:
        """Which labels are more likely right than not. Shape (n,), bool."""
        return self.weight > 0.5

    def with_weights(self, weight: Tensor) -> PseudoLabels:
        """The same labels with other weights, shape (n,), bool or float."""
        return replace(self, weight=weight.float() if weight.dtype is torch.bool else weight)

    def counting(self) -> PseudoLabels:
        """Those whose weight is above 0."""
        return self.at(torch.nonzero(self.weight).flatten())

    def at(self, position: Tensor | slice) -> PseudoLabels:
        """Those at some positions, in that order."""
        return PseudoLabels(self.index[position], self.label[position], self.weight[position], self.dual[position])

    def of(self, index: Tensor) -> PseudoLabels:
        """Those of some of the images, in that order."""
        order, ordered = self._sorted
        return self.at(order[torch.searchsorted(ordered, index)])

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        order = torch.argsort(self.index)
        return order, self.index[order]

    def alternate(self, start: int, num_classes: int) -> PseudoLabels:
        """Every other label of each class, in the order in which they are.

        Args:
            start: 0: the first of each class, the third and so on; 1: the others.
            num_classes: C.
        """
        positions = [torch.nonzero(self.label == c).flatten()[start::2] for c in range(num_classes)]
        return self.at(torch.cat(positions))

    def log_frequency(self, num_classes: int) -> Tensor:
        """Log class frequencies of the weighted labels, each class counted once more than it occurs. Shape (C,)."""
        counts = torch.ones(num_classes, dtype=torch.float64).index_add_(0, self.label, self.weight.double())
        return (counts / counts.sum()).log().float()

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return {"index": self.index, "label": self.label, "weight": self.weight, "dual": self.dual}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> PseudoLabels:
        """Labels that `state_dict` gave."""
        return cls(**state)


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for every image of the pool.

    Attributes:
        label: Its labels. Shape (N,).
        probability: Softmax probability of every class, by the positive vectors alone. Shape (N, C).
        clean: p_clean of every class. Shape (N, C).
    """

    label: Tensor
    probability: Table
    clean: Table

    @cached_property
    def confidence(self) -> Tensor:
        """Softmax probability of its labels. Shape (N,)."""
        return self.probability_of(self.label)

    @cached_property
    def margin(self) -> Tensor:
        """Softmax probability of its labels less the greatest of another class. Shape (N,)."""
        first, second = self.probability.map(lambda rows: rows.topk(2, dim=1).values).all().unbind(dim=1)
        return self.confidence - torch.where(self.confidence == first, second, first)

    def probability_of(self, label: Tensor) -> Tensor:
        """Softmax probability of one label an image. Shape (N,)."""
        return at_label(self.probability, label)

    def p_clean(self, label: Tensor) -> Tensor:
        """p_clean of one label an image. Shape (N,)."""
        return at_label(self.clean, label)


def at_label(table: Table, label: Tensor) -> Tensor:
    """What a table (N, C) has for one label an image. Shape (N,)."""
    return table.map(lambda rows, labels: rows.gather(1, labels.unsqueeze(1)), label).all().squeeze(1)
