"""Logit adjustment against classes that are hardly ever predicted: l_c - tau log mean_x p(c|x)."""

from __future__ import annotations

from torch import Tensor

from coft.core.table import Table


def correct_prior(logits: Table, tau: float, index: Tensor | None = None) -> Table:
    """Correct the logits of all unlabeled images.

    Args:
        logits: Shape (N, C).
        tau: Strength; 0 leaves the logits as they are.
        index: Images that the mean is over, shape (n,), where rows are costly; by default all.

    Returns:
        Shape (N, C), of the type of the logits.
    """
    offset = prior_offset(logits if index is None else Table.of(logits.at(index)), tau)
    return logits.map(lambda rows: rows - offset.to(rows.dtype))


def prior_offset(logits: Table, tau: float) -> Tensor:
    """What `correct_prior` takes away: tau log mean_x p(c|x). Shape (C,), fp64."""
    return tau * logits.map(lambda rows: rows.double().softmax(dim=1)).mean().clamp_min(1e-12).log()
