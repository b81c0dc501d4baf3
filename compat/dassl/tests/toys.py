"""A small data set and two small trainers, written like a plugin, and the marks of tests."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX, TrainerXU
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer

UPSTREAM = importlib.util.find_spec("dassl.modeling") is not None
PATCHED = "dassl_on_current_torch" in sys.modules  # upstream/patch
SIZE = 16
CLASSES = ("red", "green", "blue")
NO_TEST = ("TEST.NO_TEST", True)
Make = Callable[..., Any]  # what the fixture `make_trainer` is


def upstream_fault(what: str) -> Any:
    """Mark a test that upstream Dassl fails."""
    return pytest.mark.xfail(UPSTREAM, reason=f"upstream: {what}", strict=True)


def warmup_fault(what: str) -> Any:
    """Mark a test that upstream Dassl fails on current PyTorch, unless its schedules are patched."""
    return pytest.mark.xfail(UPSTREAM and not PATCHED, reason=f"upstream: {what}", strict=True)


ours_only = pytest.mark.skipif(UPSTREAM, reason="not part of upstream's API")


def datum(label: int, classname: str = "", domain: int = 0) -> Datum:
    """Make an item whose image is never read."""
    return Datum(__file__, label, domain, classname)


def checkpoint(model: nn.Module, **more: Any) -> dict[str, Any]:
    """Make a checkpoint of a model after three epochs."""
    return {"state_dict": model.state_dict(), "epoch": 3, "optimizer": None, "scheduler": None, **more}


def follow(optimizer: Any, scheduler: Any, epochs: int) -> list[float]:
    """Step through some epochs. Returns the learning rate of each."""
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        assert scheduler.get_last_lr() == rates[-1:]
        optimizer.step()
        scheduler.step()
    return rates


def write_images(folder: Path, number: int = 24) -> None:
    """Write images of noise, whose tint is that of their class."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(number):
        pixels = generator.integers(0, 160, (20, 20, 3), dtype=np.uint8)
        pixels[..., index % 3] += 60
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")


def items_in(folder: Path) -> list[Datum]:
    """Return the images of a folder; position determines label and domain."""
    paths = sorted(folder.glob("*.png"))
    return [Datum(str(path), i % 3, (i // 3) % 2, CLASSES[i % 3]) for i, path in enumerate(paths)]


@DATASET_REGISTRY.register()
class Tints(DatasetBase):
    """The images of DATASET.ROOT: all for training and test, six for validation."""

    def __init__(self, cfg: Any) -> None:
        items = items_in(Path(cfg.DATASET.ROOT))
        super().__init__(train_x=items, train_u=items[:9], val=items[:6], test=items)


class Net(nn.Module):
    """Dropout and a linear classifier, with an extra state of plain containers and tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(3 * SIZE * SIZE, 3))
        self.seen = {"steps": 0, "last": torch.zeros(2)}

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

    def get_extra_state(self) -> dict[str, Any]:
        return dict(self.seen)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.seen = dict(state)


class Steps:
    """Base of the toy trainers: two models with an optimizer each."""

    def build_model(self: Any) -> None:
        cfg = self.cfg
        for name, kind in (("first", cfg.OPTIM.NAME), ("second", "adamw")):
            options = cfg.OPTIM.clone()
            options.NAME = kind
            model = Net().to(self.device)
            optim = build_optimizer(model, options)
            self.register_model(name, model, optim, build_lr_scheduler(optim, options))
        self.first, self.second = self._models["first"], self._models["second"]
        self.used_lrs: list[float] = []

    def learn(self: Any, image: Tensor, label: Tensor) -> dict[str, float]:
        self.used_lrs.append(self._optims["first"].param_groups[0]["lr"])
        image = image + 0.01 * (random.random() + np.random.rand() + torch.rand(1))  # noqa: NPY002
        losses = {}
        for name in ("first", "second"):
            logits = self._models[name](image)
            loss = F.cross_entropy(logits, label)
            self.model_backward_and_update(loss, name)
            self._models[name].seen = {"steps": self._models[name].seen["steps"] + 1, "last": logits[0, :2].detach()}
            losses[f"loss_{name}"] = loss.item()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {**losses, "acc": compute_accuracy(logits, label)[0].item()}

    def model_inference(self: Any, image: Tensor) -> Tensor:
        return self.first(image) + self.second(image)


@TRAINER_REGISTRY.register()
class ToyX(Steps, TrainerX):
    """Trainer on labelled images."""

    def parse_batch_train(self, batch: dict[str, Any]) -> Any:
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float]:
        return self.learn(*self.parse_batch_train(batch))


@TRAINER_REGISTRY.register()
class ToyXU(Steps, TrainerXU):
    """Trainer on labelled images that records the sizes of unlabelled batches."""

    def before_epoch(self) -> None:
        self.pairs: list[tuple[int, int]] = []

    def forward_backward(self, batch_x: dict[str, Any], batch_u: dict[str, Any]) -> dict[str, float]:
        image, label, unlabelled = self.parse_batch_train(batch_x, batch_u)
        self.pairs.append((len(image), len(unlabelled)))
        return self.learn(image, label)


def make_cfg(root: Path, output: Path, *options: Any, trainer: str = "ToyX") -> Any:
    """Make the config of a toy trainer; options are keys and values."""
    cfg = get_cfg_default()
    cfg.merge_from_list(
        [
            *("DATASET.ROOT", str(root), "DATASET.NAME", "Tints", "OUTPUT_DIR", str(output), "TRAINER.NAME", trainer),
            *("INPUT.SIZE", (SIZE, SIZE), "DATALOADER.NUM_WORKERS", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 8),
            *("OPTIM.NAME", "sgd", "OPTIM.LR", 0.01, "OPTIM.MAX_EPOCH", 2, "OPTIM.LR_SCHEDULER", "cosine"),
            *options,
        ]
    )
    return cfg
