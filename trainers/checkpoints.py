"""What can be wrong with checkpoints and methods, as one line for the user."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from coft.method.errors import MethodError
from coft.runtime.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])


def readable(function: F) -> F:
    """A hook of a trainer: what its user can mend of the method's errors is one line."""

    @functools.wraps(function)
    def wrapped(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(trainer, *args, **kwargs)
        except MethodError as error:
            raise UserError(f"{type(trainer).__name__}: {error}") from error

    return cast(F, wrapped)


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
            except MethodError as error:
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


def last_epoch(directory: Path, names: Sequence[str]) -> int | None:
    """Epoch of the last checkpoint, where there is no best one.

    Raises:
        UserError: If the file that names it names none.
    """
    for name in names:
        pointer = directory / name / "checkpoint"
        if not (directory / name / "model-best.pth.tar").exists() and pointer.is_file():
            last = pointer.read_text(encoding="utf-8").strip().rpartition("-")[2]
            if not last.isdecimal():
                raise UserError(f"{pointer}: names no checkpoint; give --load-epoch")
            return int(last)
    return None
