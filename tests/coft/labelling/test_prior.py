"""Prior correction of logits against naive loops."""

from __future__ import annotations

import math

import pytest
import torch

from coft.core import table
from coft.core.table import Table
from coft.labelling.prior import correct_prior, prior_offset
from tests.coft.toys import random_logits


@pytest.mark.parametrize("rows", [7, 4096])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_prior_correction_equals_a_naive_loop(tau: float, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROWS", rows)
    logits = random_logits(30, 4, 1)
    corrected, offset = correct_prior(Table.of(logits), tau).all(), prior_offset(Table.of(logits), tau)
    probabilities = [torch.softmax(row.double(), dim=0) for row in logits]
    for c in range(4):
        prior = sum(p[c].item() for p in probabilities) / 30
        torch.testing.assert_close(corrected[:, c], logits[:, c] - tau * math.log(prior))
        assert offset[c].item() == pytest.approx(tau * math.log(prior), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_corrected_logits_keep_the_dtype_and_a_class_without_probability_is_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, 0.0, -1e4], [1.0, 0.0, -1e4]], dtype=dtype)
    before, corrected = logits.clone(), correct_prior(Table.of(logits), 0.5).all()
    assert corrected.dtype == dtype and torch.equal(logits, before)
    offset = prior_offset(Table.of(logits), 0.5)
    assert offset[2].item() == pytest.approx(0.5 * math.log(1e-12))


def test_the_prior_may_be_of_some_of_the_images() -> None:
    logits, index = torch.randn(20, 4, generator=torch.Generator().manual_seed(2)), torch.arange(0, 20, 3)
    offset = 0.5 * logits[index].double().softmax(dim=1).mean(dim=0).log()
    corrected = correct_prior(Table.of(logits), 0.5, index).all()
    torch.testing.assert_close(corrected.double(), logits.double() - offset, atol=1e-6, rtol=0)
