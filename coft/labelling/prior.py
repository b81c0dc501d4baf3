"""Prior correction, a logit adjustment in favour of rarely predicted classes: l_c - tau log mean_x p(c|x)."""

from __future__ import annotations

from torch import Tensor

from coft.core.table import Table


def correct_prior(logits: Table, tau: float, index: Tensor | None = None) -> Table:
    """Correct the prior in the logits of all unlabeled images.

    Args:
        logits: Logits. Shape (N, C).
        tau: Strength of the correction; 0 leaves the logits unchanged.
        index: Indices of the images in the mean, shape (n,), if rows are costly to compute. Default: all.

    Returns:
        Corrected logits, in the same dtype. Shape (N, C).
    """
    offset = prior_offset(logits if index is None else Table.of(logits.at(index)), tau)
    return logits.map(lambda rows: rows - offset.to(rows.dtype))


def prior_offset(logits: Table, tau: float) -> Tensor:
    """Compute the offset that `correct_prior` subtracts: tau log mean_x p(c|x). Shape (C,), fp64."""
    return tau * logits.map(lambda rows: rows.double().softmax(dim=1)).mean().clamp_min(1e-12).log()
