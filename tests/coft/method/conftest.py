"""Short runs of the method."""

from __future__ import annotations

import pytest

from coft.labelling import mixture, neighbours
from coft.method import coft


@pytest.fixture
def no_seed_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds are not limited to a share of the images of a class."""
    monkeypatch.setattr(coft, "SEEDS_SHARE", 9.0)


@pytest.fixture
def label_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phase II renews its labels in each epoch."""
    monkeypatch.setattr(coft, "REFRESH", 1)


@pytest.fixture
def no_propagation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off label propagation and the mixture of Gaussians, which have their own tests."""
    monkeypatch.setattr(mixture, "fit_temperature", lambda *args: 1e30)
    monkeypatch.setattr(neighbours, "ALPHA", 0.0)
