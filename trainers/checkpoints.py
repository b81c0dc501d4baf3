"""What can be wrong with checkpoints and methods, as one line for the user."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from coft.runtime.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])


def readable(function: F) -> F:
    """A trainer's function whose errors of loading and of the method's say what the user can do."""

    @functools.wraps(function)
    def wrapped(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        loads = function.__name__ in ("load_model", "resume_model_if_exist")
        where = f"checkpoint in {args[0]}" if loads and args else type(trainer).__name__
        try:
            return function(trainer, *args, **kwargs)
        except FileNotFoundError as error:
            raise UserError(f"{where}: {error}; give the folder and epoch of a run of this trainer") from error
        except ValueError as error:
            raise UserError(
                f"{where}: {error}, or choose another --output-dir" if loads else f"{where}: {error}"
            ) from error
        except (RuntimeError, KeyError) as error:
            if not loads:
                raise
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"{where} does not fit backbone {trainer.cfg.MODEL.BACKBONE.NAME} and trainer "
                f"{type(trainer).__name__} ({reason}); use the backbone and classes it was trained with"
            ) from error

    return cast(F, wrapped)


def last_epoch(directory: Path, names: Sequence[str]) -> int | None:
    """Epoch of the last checkpoint, where there is no best one."""
    for name in names:
        pointer = directory / name / "checkpoint"
        if not (directory / name / "model-best.pth.tar").exists() and pointer.is_file():
            return int(pointer.read_text(encoding="utf-8").split("-")[-1])
    return None
