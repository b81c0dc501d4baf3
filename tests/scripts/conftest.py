"""Fixtures of the tests of the benchmark."""

from pathlib import Path

import pytest

from scripts.comparing.benchmark import plan_units, read_benchmark

from .toy_benchmark import Planned


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the fingerprints of checkpoints."""
    for module in ("plan", "list"):
        monkeypatch.setattr(f"scripts.comparing.{module}.weights_of", lambda backbone: None)


@pytest.fixture
def planned(no_weights: None, tmp_path: Path) -> Planned:
    """Unfinished runs of the small benchmark."""
    return plan_units(read_benchmark("small"), str(tmp_path.resolve()), tmp_path / "out")
