"""What tests of the benchmark share."""

from pathlib import Path

import pytest

from scripts.comparing.benchmark import plan_units, read_benchmark

from .toy_benchmark import Planned


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint is looked at."""
    for module in ("plan", "list"):
        monkeypatch.setattr(f"scripts.comparing.{module}.weights_of", lambda backbone: None)


@pytest.fixture
def planned(no_weights: None, tmp_path: Path) -> Planned:
    """Runs of the small form, of which none is finished."""
    return plan_units(read_benchmark("small"), str(tmp_path.resolve()), tmp_path / "out")
