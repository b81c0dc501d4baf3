"""Short fits of negative vectors, and two threads for parallel peers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from coft.method import negatives
from coft.method.negative_prompt import fit_negative


@pytest.fixture(autouse=True)
def _quick_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit negative vectors in 20 steps."""
    monkeypatch.setattr(negatives, "fit_negative", partial(fit_negative, steps=20))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
