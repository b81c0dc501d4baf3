"""Short runs of the method."""

from __future__ import annotations

import pytest

from coft.labelling import mixture, neighbours


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours and other images have no share in what an image is; tests of them have it."""
    monkeypatch.setattr(mixture, "calibrated", lambda *args: 1e30)
    monkeypatch.setattr(neighbours, "SHARE", 0.0)
