"""Short runs of rivals."""

from __future__ import annotations

from functools import partial

import pytest

from coft.method import negatives
from coft.method.negative_prompt import fit_negative


@pytest.fixture(autouse=True)
def _quick_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative vectors are fitted in few steps."""
    monkeypatch.setattr(negatives, "fit_negative", partial(fit_negative, steps=20))
