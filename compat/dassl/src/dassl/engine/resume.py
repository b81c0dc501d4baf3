"""State of a run, from which it can be resumed with bitwise the same results.

A single file, `resume.pth.tar` in the output folder, is replaced after each epoch, so that the states of several models
are always of the same epoch. It holds tensors, numbers and plain containers. Numbered checkpoints have Dassl's format;
after the last epoch the file refers to them instead of holding the weights a second time.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..utils import checkpoints
from ..utils.checkpoints import load_checkpoint, strip_module, write_torch
from ..utils.files import StrPath, mkdir_if_missing

if TYPE_CHECKING:
    from .base import TrainerBase

State = dict[str, Any]

FILE = "resume.pth.tar"
LOADERS = ("train_loader_x", "train_loader_u", "val_loader", "test_loader")


def model_states(trainer: TrainerBase) -> dict[str, State]:
    """Return the state of each registered model, its optimizer and its schedule."""
    return {
        name: {
            "state_dict": strip_module(model.state_dict()),
            "optimizer": _state(trainer._optims[name]),
            "scheduler": _state(trainer._scheds[name]),
        }
        for name, model in trainer._models.items()
    }


def _state(part: Any) -> Any:
    return None if part is None else part.state_dict()


def write(trainer: TrainerBase, directory: StrPath, resumed_from: str) -> None:
    """Write the state after the current epoch.

    Args:
        trainer: Trainer whose state is written.
        directory: Output folder of the run.
        resumed_from: Folder from which the run was first resumed (RESUME); empty if it was not.
    """
    epoch = trainer.epoch + 1
    saved = epoch == trainer.max_epoch and trainer._checkpointed == (str(directory), epoch)
    state = {
        "epoch": epoch,
        "models": dict.fromkeys(trainer._models, f"model.pth.tar-{epoch}") if saved else model_states(trainer),
        "best_result": float(trainer.best_result),
        "scalers": {name: scaler.state_dict() for name, scaler in _scalers(trainer)},
        "generators": {name: generator.get_state() for name, generator in _generators(trainer)},
        "random": _random_state(),
        "resumed_from": resumed_from,
    }
    for name in trainer._models:
        mkdir_if_missing(Path(directory) / name)
    write_torch(state, Path(directory) / FILE)


def read(directory: StrPath) -> State | None:
    """Read the state that `write` wrote; None if there is none."""
    path = Path(directory) / FILE
    return load_checkpoint(path) if path.is_file() else None


def restore(trainer: TrainerBase, directory: StrPath, state: State) -> int:
    """Restore everything but the random number generators.

    Returns:
        Epoch to continue with.

    Raises:
        KeyError: If the state belongs to other models.
    """
    if set(state["models"]) != set(trainer._models):
        raise KeyError(f"{directory} is of a trainer with models {list(state['models'])}, not {list(trainer._models)}")
    for name, model in trainer._models.items():
        saved = state["models"][name]
        if isinstance(saved, str):
            saved = load_checkpoint(Path(directory) / name / saved)
        checkpoints.restore(saved, model, trainer._optims[name], trainer._scheds[name])
    for name, scaler in _scalers(trainer):
        if state["scalers"].get(name):
            scaler.load_state_dict(state["scalers"][name])
    trainer.best_result = state["best_result"]
    trainer.epoch = state["epoch"] - 1
    print(f"Previous epoch: {state['epoch']}")
    return int(state["epoch"])


def restore_best(trainer: TrainerBase, folders: Iterable[Path]) -> None:
    """Restore the best result from the best checkpoint, for runs of Dassl, which have no state file."""
    for folder in folders:
        best = folder / checkpoints.BEST
        result = load_checkpoint(best).get("val_result") if best.is_file() else None
        if result is not None:
            trainer.best_result = float(result)


def restore_generators(trainer: TrainerBase, state: State) -> None:
    """Restore the random number generators, from which the workers of loaders are seeded as well."""
    for name, generator in _generators(trainer):
        if name in state["generators"]:
            generator.set_state(state["generators"][name].cpu())
    saved = state["random"]
    random.setstate(saved["python"])
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(saved["torch"].cpu())
    for device, value in enumerate(saved["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(value.cpu(), device)


def _random_state() -> State:
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _scalers(trainer: TrainerBase) -> Iterator[tuple[str, torch.amp.GradScaler]]:
    for name, value in vars(trainer).items():
        if isinstance(value, torch.amp.GradScaler):
            yield name, value


def _generators(trainer: TrainerBase) -> Iterator[tuple[str, torch.Generator]]:
    """Yield the loaders' own generators; most loaders have none and use the global generator."""
    for name in LOADERS:
        loader = getattr(trainer, name, None)
        parts = {name: loader}
        parts |= {f"{name}.{part}": getattr(loader, part, None) for part in ("sampler", "batch_sampler")}
        for key, part in parts.items():
            generator = getattr(part, "generator", None)
            if isinstance(generator, torch.Generator):
                yield key, generator
