"""Short runs of the method."""

from __future__ import annotations

import pytest

from coft.labelling import mixture, neighbours
from coft.method import coft


@pytest.fixture
def warm_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds are filtered from the second epoch of Phase I on, however little d can tell yet."""
    monkeypatch.setattr(coft, "WARMUP_STEPS", 2)
    monkeypatch.setattr(coft, "MIN_AUC", 0.0)


@pytest.fixture
def none_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """No label counts in full in any case."""
    monkeypatch.setattr(coft, "MIN_KEPT", 0)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours and other images have no share in what an image is; tests of them have it."""
    monkeypatch.setattr(mixture, "calibrated", lambda *args: 1e30)
    monkeypatch.setattr(neighbours, "SHARE", 0.0)
