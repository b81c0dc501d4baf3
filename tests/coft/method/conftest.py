"""Short runs of the method."""

from __future__ import annotations

import pytest

from coft.labelling import mixture, neighbours
from coft.method import coft


@pytest.fixture
def all_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many seeds as a class has images."""
    monkeypatch.setattr(coft, "SEEDS_SHARE", 9.0)


@pytest.fixture
def labelled_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phase II makes its labels in each epoch."""
    monkeypatch.setattr(coft, "REFRESH", 1)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours and other images have no share in what an image is; tests of them have it."""
    monkeypatch.setattr(mixture, "fit_temperature", lambda *args: 1e30)
    monkeypatch.setattr(neighbours, "ALPHA", 0.0)
