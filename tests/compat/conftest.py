"""Fixtures of the conformance suite."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from dassl.engine import build_trainer
from dassl.utils import set_random_seed

from .toys import UPSTREAM, make_cfg, write_images

settings.register_profile("any-machine", deadline=None)  # how long an example takes depends on what else runs there
settings.load_profile("any-machine")


def pytest_sessionstart() -> None:
    found = importlib.util.find_spec("dassl.modeling") is not None
    if found != UPSTREAM:
        raise pytest.UsageError(
            f"the importable dassl is {'upstream' if found else 'ours'}, DASSL_UNDER_TEST names the other one"
        )


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 images."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


@pytest.fixture
def make_trainer(images: Path, tmp_path: Path) -> Callable[..., Any]:
    """Build a toy trainer with seed 0, writing to `tmp_path / "out"`; options are keys and values."""

    def make(*options: Any, trainer: str = "ToyX") -> Any:
        set_random_seed(0)
        return build_trainer(make_cfg(images, tmp_path / "out", *options, trainer=trainer))

    return make
