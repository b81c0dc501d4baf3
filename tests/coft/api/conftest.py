"""A small folder of images, and settings for short runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coft.method import guard, negatives
from coft.method.negative_prompt import fit_negative
from tests.conftest import CLASSNAMES, draw

SHORT: dict[str, Any] = {
    "seeds_per_class": 3,
    "prec": "fp32",
    "label_views": 2,
    "phase1__epochs": 2,
    "phase1__min_steps": 2,
    "phase2__epochs": 2,
    "phase2__lr": 1e-3,
    "dataloader__train_x__batch_size": 12,
}


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Fit negative vectors in fewer steps, and let CLIPs of random weights train."""
    patch.setattr(guard, "MIN_SKILL", -1.0)
    patch.setattr(negatives, "fit_negative", partial(fit_negative, steps=10))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """24 images of three alternating classes."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(draw(number % len(CLASSNAMES), rng)) for number in range(24)]


def write_folder(folder: Path, pictures: list[Image.Image]) -> Path:
    """Write images as files, one of them twice, and a broken file."""
    (folder / "more").mkdir(parents=True)
    for number, picture in enumerate(pictures):
        picture.save(folder / ("more" if number % 2 else "") / f"{number}.png")
    (folder / "again.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "broken.png").write_bytes(b"x")
    return folder


@pytest.fixture
def folder(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    return write_folder(tmp_path / "images", pictures)
