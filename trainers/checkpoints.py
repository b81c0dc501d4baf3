"""What can be wrong with checkpoints and methods, as one line for the user."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import nn

from coft.core.errors import UserError
from coft.core.experiment import OtherRunError, check_identity, write_json
from coft.core.finite import check_models
from coft.core.forms import Text, mapping
from coft.core.outside import read_json, read_text
from coft.engine.session import Session

IDENTITY = "trained_on.json"
MOST_IDENTITY = 1 << 24  # bytes
OF_CHECKPOINT = "give another checkpoint, or train again with a lower OPTIM.LR"
F = TypeVar("F", bound=Callable[..., Any])


class State(nn.Module):
    """What a run keeps beside weights and optimizers, as one of the models that Dassl saves and loads.

    Args:
        session: The run.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = (session,)  # in a tuple: its models are none of this one's

    def get_extra_state(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        return self._session[0].state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over a state; weights are loaded after it.

        Raises:
            OtherRunError: If it is of another backbone, class list or set of images.
        """
        self._session[0].load_state_dict(state)


def loads(flag: str) -> Callable[[F], F]:
    """A trainer's function that loads checkpoints from the folder that is its first argument.

    Args:
        flag: What named the folder.
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
                raise UserError(f"checkpoint in {directory}: {error}, or give another {flag}") from error
            except (UserError, PermissionError):
                raise
            except Exception as error:  # whatever bytes, names and shapes of an alien file lead to
                reason = " ".join(str(error).split())[:160] or type(error).__name__
                raise UserError(
                    f"checkpoint in {directory} does not fit backbone {trainer.cfg.MODEL.BACKBONE.NAME} and trainer "
                    f"{type(trainer).__name__} ({reason}); use the backbone and classes it was trained with"
                ) from error

        return cast(F, wrapped)

    return decorate


def epoch_to_load(directory: str | os.PathLike[str], epoch: int | None, names: Sequence[str]) -> int | None:
    """Epoch of the checkpoint to load: the one that is given, else the last; None where there is a best one.

    Args:
        directory: That of a run; may be empty where there is nothing to load.
        epoch: What the user gave.
        names: Of the models.

    Raises:
        UserError: If there is no directory, or the file that names the last checkpoint names none.
    """
    if not directory and names:
        raise UserError("--eval-only: --model-dir is missing, and nothing is trained; give a run's output folder")
    return last_epoch(Path(directory), names) if directory and epoch is None else epoch


def last_epoch(directory: Path, names: Sequence[str]) -> int | None:
    """Epoch of the last checkpoint, where there is no best one.

    Raises:
        UserError: If the file that names it names none.
    """
    for name in names:
        pointer = directory / name / "checkpoint"
        if not (directory / name / "model-best.pth.tar").exists() and pointer.is_file():
            last = read_text(pointer, 4096).strip().rpartition("-")[2]
            if not (last.isdecimal() and len(last) < 10):
                raise UserError(f"{pointer}: names no checkpoint; give --load-epoch")
            return int(last)
    return None


def check_resumed(trainer: Any, directory: str | os.PathLike[str], epoch: int) -> None:
    """Check what a trainer has resumed from.

    Args:
        trainer: The trainer.
        directory: Where it has looked.
        epoch: To go on with; 0 where nothing was found.

    Raises:
        UserError: If the user named a folder that holds nothing, or a run on something else, or weights are no numbers.
    """
    if epoch > trainer.max_epoch:
        raise UserError(f"checkpoint in {directory}: is of epoch {epoch}, of {trainer.max_epoch}; give another folder")
    if epoch:
        check_kept_identity(trainer, Path(directory))
        check_models(trainer.method.models, f"checkpoint in {directory}", OF_CHECKPOINT)
    elif trainer.cfg.RESUME:
        raise UserError(f"--resume {trainer.cfg.RESUME}: holds no epoch to go on from; give a run's output folder")


def keep_identity(trainer: Any) -> None:
    """Write down what a run is trained on; checkpoints of prompts are CoOp's, and do not have it."""
    write_json(Path(trainer.output_dir) / IDENTITY, trainer.session.identity)


def check_kept_identity(trainer: Any, folder: Path) -> None:
    """Compare what a run was trained on, where it says so, to what this one has.

    Raises:
        OtherRunError: Naming the first difference.
        UserError: If the file cannot be read.
    """
    path = folder / IDENTITY
    if not path.is_file():  # a run of before, or of another toolbox
        return
    try:
        kept: dict[str, str] = read_json(path, MOST_IDENTITY)
        mapping(Text(1 << 22)).check(kept)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove it, or train again") from error
    check_identity(kept, trainer.session.identity)
