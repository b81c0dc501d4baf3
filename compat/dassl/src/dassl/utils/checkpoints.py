"""Checkpoints, written atomically and read without running pickled code."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import unpickling
from .files import StrPath, replacing

__all__ = ["load_checkpoint", "resume_from_checkpoint", "save_checkpoint"]

Where = str | dict[str, str]  # devices for the tensors of a checkpoint, `map_location` of torch.load

BEST = "model-best.pth.tar"
POINTER = "checkpoint"


def write_torch(obj: Any, fpath: StrPath) -> None:
    """Write tensors and plain containers atomically."""
    with replacing(fpath) as file:
        torch.save(obj, file)


def save_checkpoint(
    state: dict[str, Any],
    save_dir: StrPath,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Write a checkpoint, and its name to the text file `checkpoint` next to it.

    Args:
        state: State with at least the keys `state_dict` and `epoch`.
        save_dir: Folder of the checkpoint, created if it is missing.
        is_best: Whether to copy the checkpoint to `model-best.pth.tar`.
        remove_module_from_keys: Whether to remove the prefix "module." that a parallel wrapper adds to names.
        model_name: File name; default: `model.pth.tar-<epoch>`.
    """
    if remove_module_from_keys:
        state = {**state, "state_dict": strip_module(state["state_dict"])}
    path = Path(save_dir) / (model_name or f"model.pth.tar-{state['epoch']}")
    write_torch(state, path)
    print(f"Checkpoint saved to {path}")
    with replacing(path.with_name(POINTER)) as file:
        file.write(f"{path.name}\n".encode())
    if is_best:
        best = path.with_name(BEST)
        with replacing(best) as file, path.open("rb") as source:
            shutil.copyfileobj(source, file)
        print(f'Best checkpoint saved to "{best}"')


def load_checkpoint(fpath: StrPath) -> dict[str, Any]:
    """Read a checkpoint. Tensors go to the CPU without CUDA, and from the first GPU to the current one with it.

    Dassl's checkpoints with pickled schedules are read, too, with the schedules reduced to their attributes.

    Raises:
        ValueError: If the path is None.
        FileNotFoundError: If there is no such file.
        UnsafePickleError: If the file contains more than data.
        RuntimeError: If the file is damaged.
    """
    if fpath is None:
        raise ValueError("File path is None")
    if not Path(fpath).is_file():  # reading a pipe would never end
        raise FileNotFoundError(f'File is not found at "{os.fspath(fpath)}"')
    _check_sums(Path(fpath))
    device: Where = {"cuda:0": f"cuda:{torch.cuda.current_device()}"} if torch.cuda.is_available() else "cpu"
    with contextlib.suppress(pickle.UnpicklingError):
        try:
            return torch.load(fpath, map_location=device, weights_only=True)
        except (RuntimeError, EOFError) as error:
            raise RuntimeError(f"checkpoint {os.fspath(fpath)} is damaged ({_first_line(error)}); remove it") from error
    return _load_with_objects(fpath, device)


def _check_sums(path: Path) -> None:
    """Verify the checksums of an archive, which PyTorch does not."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # a broken archive may raise any exception
        raise RuntimeError(f"checkpoint {path} is damaged ({_first_line(error)}); remove it") from error
    if broken:
        raise RuntimeError(f"checkpoint {path} is damaged (checksum of {broken}); remove it")


def _load_with_objects(fpath: StrPath, device: Where) -> dict[str, Any]:
    try:
        return unpickling.plain(torch.load(fpath, map_location=device, pickle_module=unpickling, weights_only=False))
    except Exception as error:  # a broken pickle may raise any exception
        raise unpickling.refusal(fpath, error) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def resume_from_checkpoint(fdir: StrPath, model: nn.Module, optimizer: Any = None, scheduler: Any = None) -> int:
    """Restore a model, and its optimizer and schedule, from the checkpoint that the text file `checkpoint` names.

    Returns:
        Epoch to continue with, counted from 0.
    """
    path = Path(fdir) / (Path(fdir) / POINTER).read_text(encoding="utf-8").strip()
    print(f'Loading checkpoint from "{path}"')
    checkpoint = load_checkpoint(path)
    restore(checkpoint, model, optimizer, scheduler)
    print(f"Previous epoch: {checkpoint['epoch']}")
    return int(checkpoint["epoch"])


def restore(checkpoint: dict[str, Any], model: nn.Module, optimizer: Any = None, scheduler: Any = None) -> None:
    """Load what a checkpoint holds into a model, its optimizer and its schedule."""
    model.load_state_dict(fit_module(checkpoint["state_dict"], model))
    print("Loaded model weights")
    if optimizer is not None and checkpoint.get("optimizer") is not None:
        optimizer.load_state_dict(checkpoint["optimizer"])
        print("Loaded optimizer")
    if scheduler is not None and checkpoint.get("scheduler") is not None:
        scheduler.load_state_dict(checkpoint["scheduler"])
        print("Loaded scheduler")


def strip_module(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Remove the prefix "module." from names that have it."""
    if not any(name.startswith("module.") for name in state_dict):
        return state_dict
    return OrderedDict((name.removeprefix("module."), value) for name, value in state_dict.items())


def fit_module(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Add the prefix "module." to names that the model has with it, as a parallel wrapper does."""
    wrapped = {name for name in model.state_dict() if name.startswith("module.")}
    if not wrapped:
        return state_dict
    return OrderedDict(
        (f"module.{name}" if f"module.{name}" in wrapped else name, value) for name, value in state_dict.items()
    )
