"""Every trainer with every family of open_clip's models: tiny random ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.open_clip_models import CONFIGS, write_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Backbone names of models of all families."""
    root = tmp_path_factory.mktemp("open_clip")
    return {name: f"open_clip:{write_model(root / name, config)}" for name, config in CONFIGS.items()}


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "CoFT"])
def test_trainers_run(run: Callable[..., Any], folders: dict[str, str], trainer: str, family: str) -> None:
    built = run(trainer, folders[family])
    assert built.results["accuracy_test"] >= 0
