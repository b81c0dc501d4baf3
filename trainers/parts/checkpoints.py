"""Which checkpoints a run keeps, and which one all of its models can go on from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .experiment import replacing

_EPOCH = re.compile(r"model\.pth\.tar-(\d+)")


def saved_epochs(folder: Path) -> set[int]:
    """Epochs that a model's folder has checkpoints of."""
    found = (_EPOCH.fullmatch(path.name) for path in folder.glob("model.pth.tar-*"))
    return {int(match[1]) for match in found if match}


def agree_on_epoch(output_dir: Path, models: Iterable[str]) -> None:
    """Point all models to the last epoch that each of them has a checkpoint of.

    A kill between the checkpoints of two models leaves them at different epochs.
    """
    folders = [output_dir / name for name in models]
    if not folders or not all((folder / "checkpoint").is_file() for folder in folders):
        return
    common = set.intersection(*(saved_epochs(folder) for folder in folders))
    for folder in folders:
        pointer = folder / "checkpoint"
        if common and pointer.read_text(encoding="utf-8").strip() != f"model.pth.tar-{max(common)}":
            with replacing(pointer) as draft:
                draft.write_text(f"model.pth.tar-{max(common)}\n", encoding="utf-8")


def remove_earlier(output_dir: Path, models: Iterable[str], epoch: int, keep: set[int]) -> None:
    """Remove checkpoints of epochs before `epoch`, but for those to keep."""
    for name in models:
        for earlier in saved_epochs(output_dir / name):
            if earlier < epoch and earlier not in keep:
                (output_dir / name / f"model.pth.tar-{earlier}").unlink()
