"""Small CLIPs in OpenAI's format and a small data set, made by the tests."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("DASSL_PROGRESS", "0")
os.environ.pop("CALLED_FROM", None)  # set by scripts/test.sh; commands that tests call must not see it

import numpy as np
import pytest
import torch
from clip.model import CLIP
from PIL import Image

from coft.backbones import backbone
from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import DeclaredDataset, dataset_root, read_split

torch.set_num_threads(1)  # threads slow models of this size down
CLASSNAMES = ("red circle", "green square", "blue stripes")


def pytest_collection_finish() -> None:
    """Exclude imported modules from garbage collection, which takes 0.1 s each time otherwise."""
    gc.collect()
    gc.freeze()


def make_clip(vit: bool, seed: int = 0) -> CLIP:
    """A CLIP with random weights, in evaluation mode: 32 px, 32 dimensions."""
    torch.manual_seed(seed)
    vision: tuple[Any, ...] = (32, 2, 64, 8) if vit else (32, (1, 1, 1, 1), 8, None)
    model = CLIP(32, *vision, 77, 49408, 64, 1, 2)
    for parameter in model.visual.parameters():
        if parameter.dim() == 1 and parameter.eq(0).all():
            torch.nn.init.normal_(parameter, std=0.1)  # zero biases would hide mistakes
    with torch.no_grad():  # without fitted statistics all images have the same features
        for _ in range(20):
            model.train().visual(torch.randn(32, 3, 32, 32) + torch.randn(32, 3, 1, 1))
    return model.eval()


@pytest.fixture(scope="session", params=["resnet", "vit"])
def clip_model(request: pytest.FixtureRequest) -> CLIP:
    return make_clip(request.param == "vit").requires_grad_(False)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """State dicts of two ResNets and a ViT."""
    folder = tmp_path_factory.mktemp("clips")
    paths = {}
    for name, vit, seed in (("resnet", False, 0), ("other", False, 1), ("vit", True, 0)):
        paths[name] = folder / f"{name}.pt"
        torch.save(make_clip(vit, seed).state_dict(), paths[name])
    return paths


@DATASET_REGISTRY.register()
class Shapes(DeclaredDataset):
    """Images of a split file under DATASET.ROOT."""

    def __init__(self, cfg: Any) -> None:
        root = dataset_root(cfg)
        train, val, test = read_split(root / "split.json", root / "images")
        super().__init__(cfg, classnames=CLASSNAMES, train=train, val=val, test=test)


def draw(label: int, rng: np.random.Generator) -> np.ndarray:
    """A noisy image of 32x32 pixels whose colour and pattern depend on the class."""
    image = rng.normal(90, 30, (32, 32, 3))
    rows, columns = np.mgrid[:32, :32]
    shift = rng.integers(-4, 5, 2)
    mask = [
        (rows - 16 - shift[0]) ** 2 + (columns - 16 - shift[1]) ** 2 < 80,
        (abs(rows - 16 - shift[0]) < 8) & (abs(columns - 16 - shift[1]) < 8),
        (columns + shift[0]) % 8 < 4,
    ][label]
    image[mask, label] += 120
    return image.clip(0, 255).astype(np.uint8)


def write_shapes(root: Path, per_class: int = 12, seed: int = 0) -> Path:
    """Write the Shapes data set: `per_class` training images and half as many for the test."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    split: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
    for part, count in (("train", per_class), ("test", per_class // 2)):
        for label, name in enumerate(CLASSNAMES):
            for i in range(count):
                path = f"{part}_{label}_{i}.png"
                Image.fromarray(draw(label, rng)).save(root / "images" / path)
                split[part].append([path, label, name])
    (root / "split.json").write_text(json.dumps(split))
    return root


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes") / "data")


@pytest.fixture(autouse=True)
def _no_feature_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests share no cached features."""
    monkeypatch.setattr(backbone, "FEATURE_CACHE", None)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands change the number of threads, and forks of a process with several threads hang."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def configure(tmp_path: Path, shapes: Path, checkpoints: dict[str, Path]) -> Callable[..., Any]:
    """Make a config of a trainer on Shapes: configure("CoFT", "resnet", KEY=value with __ for dots ...)."""
    from train import make_parser
    from trainers import extend_cfg
    from trainers.config import make_cfg

    def make(trainer: str, backbone: str = "resnet", root: Path = shapes, out: str = "out", **settings: Any) -> Any:
        flags = ["--trainer", trainer, "--backbone", str(checkpoints.get(backbone, backbone)), "--seed", "1"]
        flags += ["--root", str(root), "--output-dir", str(tmp_path / out)]
        pairs = {"DATASET.NAME": "Shapes", "DATALOADER.NUM_WORKERS": 0, "DATALOADER.TRAIN_X.BATCH_SIZE": 20}
        pairs |= {key.replace("__", "."): value for key, value in settings.items()}
        flags += [str(part) for pair in pairs.items() for part in pair]
        return make_cfg(make_parser().parse_args(flags), extend_cfg)

    return make


@pytest.fixture(scope="session")
def folder_of_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images, three of each class."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(9):
        Image.fromarray(draw(number % 3, rng)).save(folder / f"{number}.png")
    return folder
