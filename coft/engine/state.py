"""Resumable state of a `coft.adapt` run: tensors and plain containers. A resumed run gives bit-identical results.

A Dassl trainer uses Dassl's `resume.pth.tar` instead: see `trainers.checkpoints`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from coft.core.errors import UserError, in_a_line
from coft.core.files import replacing
from coft.core.finite import check_models
from coft.core.schemas import Anything, Record, whole
from coft.core.tensors import load_saved
from coft.core.untrusted import MISSING

from .session import Session

FILE = "resume.pt"


def write(folder: Path, epochs: int, session: Session) -> None:
    """Write the state after a number of finished epochs."""
    engine, scaler = session.engine, session.runtime.scaler
    parts: dict[str, Any] = {
        name: {
            "model": model.state_dict(),
            "optimizer": engine.optimizers[name].state_dict(),
            "scheduler": engine.schedulers[name].state_dict(),
        }
        for name, model in session.method.models.items()
    }
    state = session.state_dict() | {"epochs": epochs, "parts": parts}
    state["scaler"] = None if scaler is None else scaler.state_dict()
    with replacing(folder / FILE) as draft, draft.open("wb") as file:  # torch's own writer hides disk errors
        torch.save(state, file)


def restore(folder: Path, session: Session) -> int:
    """Restore the state that `write` saved, if there is one.

    Returns:
        Number of finished epochs; 0 without a saved state.

    Raises:
        UserError: If the state cannot be read, or belongs to another run.
    """
    path = folder / FILE
    engine, scaler = session.engine, session.runtime.scaler
    try:
        state = load_saved(path)
        form_of(session).check(state)
        session.load_state_dict(state)  # first, since it enters the saved phase
        for name, part in state["parts"].items():
            session.method.models[name].load_state_dict(part["model"])
            engine.optimizers[name].load_state_dict(part["optimizer"])
            engine.schedulers[name].load_state_dict(part["scheduler"])
        if scaler is not None and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        epochs: int = state["epochs"]
        engine.loaded()
    except MISSING:
        return 0
    except (UserError, RuntimeError, LookupError, ValueError, OSError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: cannot resume from this state ({in_a_line(error)}); remove the folder") from error
    check_models(session.method.models, str(path), "remove the folder, and give the command again with a lower rate")
    return epochs


def form_of(session: Session) -> Record:
    """Return the expected structure of a saved state, given the models and epochs of the run."""
    part = Record(dict.fromkeys(("model", "optimizer", "scheduler"), Record(others=Anything(), names=Anything())))
    parts = {"epochs": whole(1, session.method.epochs), "parts": Record(dict.fromkeys(session.method.models, part))}
    return Record(parts | {"scaler": Anything()}, others=Anything())


def remove(folder: Path) -> None:
    """Remove the state of a finished run."""
    (folder / FILE).unlink(missing_ok=True)
