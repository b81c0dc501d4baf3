"""Saving, loading and checking of checkpoints, with one-line errors for the user."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import nn

from coft.core.errors import UserError, in_a_line
from coft.core.experiment import OtherRunError, check_identity, write_json
from coft.core.finite import check_models
from coft.core.schemas import Text, mapping
from coft.core.untrusted import read_json, read_text
from coft.engine.session import Session

IDENTITY = "trained_on.json"
MOST_IDENTITY = 1 << 24  # bytes
CHECKPOINT_REMEDY = "give another checkpoint, or train again with a lower OPTIM.LR"
F = TypeVar("F", bound=Callable[..., Any])


class State(nn.Module):
    """State of a run besides weights and optimizers, wrapped as a module so that Dassl saves and loads it.

    Args:
        session: The run.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = (session,)  # in a tuple, so that its models do not become submodules

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state, as tensors and plain containers."""
        return self._session[0].state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore a state. Weights must be loaded after it.

        Raises:
            OtherRunError: If the state belongs to another backbone, class list or set of images.
            SchemaError: If its pseudo-labels do not fit the number of images or classes.
        """
        self._session[0].load_state_dict(state)


def loads(flag: str) -> Callable[[F], F]:
    """Decorate a trainer's method that loads checkpoints from a path, its first argument: errors become a UserError.

    Args:
        flag: Flag or setting that names the path, for error messages.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapped(trainer: Any, directory: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return function(trainer, directory, *args, **kwargs)
            except FileNotFoundError as error:
                hint = "give the folder and epoch of a run of this trainer"
                raise UserError(f"{flag} {directory}: {error}; {hint}") from error
            except OtherRunError as error:
                raise UserError(f"checkpoint in {directory}: {error}, or choose another {flag}") from error
            except (UserError, PermissionError):
                raise
            except Exception as error:  # a foreign file may raise anything
                raise UserError(
                    f"checkpoint in {directory} does not fit backbone {trainer.cfg.MODEL.BACKBONE.NAME} and trainer "
                    f"{type(trainer).__name__} ({in_a_line(error)}); use the backbone and classes it was trained with"
                ) from error

        return cast(F, wrapped)

    return decorate


def epoch_to_load(directory: str | os.PathLike[str], epoch: int | None, names: Sequence[str]) -> int | None:
    """Return the epoch of the checkpoint to load: the given one, else the last; None if there is a best one.

    Args:
        directory: Output folder of a run; may be empty if there are no models to load.
        epoch: Epoch that the user gave, if any.
        names: Names of the models.

    Raises:
        UserError: If the directory is missing, or the pointer to the last checkpoint is invalid.
    """
    if not directory and names:
        raise UserError("--eval-only: --model-dir is missing, and nothing is trained; give a run's output folder")
    return last_epoch(Path(directory), names) if directory and epoch is None else epoch


def last_epoch(directory: Path, names: Sequence[str]) -> int | None:
    """Return the epoch of the last checkpoint; None if there is a best one, or no checkpoint.

    Raises:
        UserError: If the pointer to the last checkpoint is invalid.
    """
    for name in names:
        pointer = directory / name / "checkpoint"
        if not (directory / name / "model-best.pth.tar").exists() and pointer.is_file():
            last = read_text(pointer, 4096).strip().rpartition("-")[2]
            if not (last.isdecimal() and len(last) < 10):
                raise UserError(f"{pointer}: names no checkpoint; pass --load-epoch")
            return int(last)
    return None


def check_resumed(trainer: Any, directory: str | os.PathLike[str], epoch: int) -> None:
    """Check the checkpoint that a trainer was resumed from.

    Args:
        trainer: Dassl trainer.
        directory: Folder that was searched for a checkpoint.
        epoch: Epoch to continue with; 0 if nothing was found.

    Raises:
        UserError: If the folder given by --resume has no checkpoint, or its checkpoint is beyond the last epoch,
            belongs to another run, or has weights that are not finite.
    """
    if epoch > trainer.max_epoch:
        raise UserError(
            f"checkpoint in {directory}: is from epoch {epoch}, but the run has {trainer.max_epoch} epochs; "
            f"give another folder"
        )
    if epoch:
        check_kept_identity(trainer, Path(directory))
        check_models(trainer.method.models, f"checkpoint in {directory}", CHECKPOINT_REMEDY)
    elif trainer.cfg.RESUME:
        raise UserError(f"--resume {trainer.cfg.RESUME}: has no checkpoint to resume from; give a run's output folder")


def keep_identity(trainer: Any) -> None:
    """Write the identity of a run to a file, since checkpoints of prompts have CoOp's format, which lacks it."""
    write_json(Path(trainer.output_dir) / IDENTITY, trainer.identity)


def check_kept_identity(trainer: Any, folder: Path) -> None:
    """Check that the identity kept by `keep_identity`, if there is one, is that of the present run.

    Raises:
        OtherRunError: If it differs. The message names the first difference.
        UserError: If the file cannot be read.
    """
    if kept := kept_identity(folder):
        check_identity(kept, trainer.identity)


def check_backbone(trainer: Any, folder: Path) -> None:
    """Check that a run whose checkpoint is evaluated had the present backbone; its data may differ.

    Raises:
        OtherRunError: If it had another one.
        UserError: If the identity kept by `keep_identity` cannot be read.
    """
    if "backbone" in (kept := kept_identity(folder)):
        check_identity(kept, {"backbone": trainer.identity["backbone"]})


def kept_identity(folder: Path) -> dict[str, str]:
    """Read the identity kept by `keep_identity`; empty if there is none.

    Raises:
        UserError: If the file cannot be read.
    """
    path = folder / IDENTITY
    if not path.is_file():  # a run of an older version, or of another toolbox
        return {}
    try:
        kept: dict[str, str] = read_json(path, MOST_IDENTITY)
        mapping(Text(1 << 22)).check(kept)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove it, or train again") from error
    return kept
