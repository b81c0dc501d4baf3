"""A saved model of random weights, images, and a limit on file sizes."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coft.inference.model import AdaptedModel
from coft.inference.store import save

from .models import make_model


@pytest.fixture(scope="session")
def model(checkpoints: dict[str, Path]) -> AdaptedModel:
    return make_model(checkpoints["resnet"])


@pytest.fixture(scope="session")
def finished_run(model: AdaptedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save(model, folder / "model")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eleven images, three of them in a subfolder, and files that are no images."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number in range(11):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("more" if number > 7 else "") / f"{number:02}.png")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    (folder / "empty.png").touch()
    (folder / "gone.png").symlink_to(folder / "nowhere")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes((folder / "00.png").read_bytes())
    return folder


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """Context in which no file grows beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
