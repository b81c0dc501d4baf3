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

torch.set_num_threads(1)  # for models as small as these, threads cost more than they bring
settings.register_profile("any-machine", deadline=None)  # how long an example takes depends on what else runs there
settings.load_profile("any-machine")


def pytest_sessionstart() -> None:
    present = "upstream" if UPSTREAM else "ours"
    if os.environ.get("DASSL_UNDER_TEST", present) != present:
        raise pytest.UsageError(f"the importable dassl is {present}, DASSL_UNDER_TEST names another one")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 images."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


@pytest.fixture
def make_trainer(images: Path, tmp_path: Path) -> Make:
    """Build a toy trainer with seed 0, writing to `tmp_path / "out"`; options are keys and values."""

    def make(*options: Any, trainer: str = "ToyX") -> Any:
        set_random_seed(0)
        return build_trainer(make_cfg(images, tmp_path / "out", *options, trainer=trainer))

    return make
