"""Fixtures of the conformance suite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("DASSL_PROGRESS", "0")

import pytest
import torch
from hypothesis import settings

from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from toys import UPSTREAM, Make, make_cfg, write_images

torch.set_num_threads(1)  # faster for models of this size
settings.register_profile("any-machine", deadline=None)  # the time of an example depends on the load of the machine
settings.load_profile("any-machine")


def pytest_sessionstart() -> None:
    present = "upstream" if UPSTREAM else "ours"
    if os.environ.get("DASSL_UNDER_TEST", present) != present:
        raise pytest.UsageError(f"the installed dassl is {present}, but DASSL_UNDER_TEST is another one")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 24 images."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


@pytest.fixture
def make_trainer(images: Path, tmp_path: Path) -> Make:
    """Function that builds a toy trainer with seed 0 and output folder "out"; options are keys and values."""

    def make(*options: Any, trainer: str = "ToyX") -> Any:
        set_random_seed(0)
        return build_trainer(make_cfg(images, tmp_path / "out", *options, trainer=trainer))

    return make
