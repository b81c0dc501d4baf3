"""What a run that was stopped leaves behind: tensors and plain containers, for another to go on to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from coft.core.errors import UserError
from coft.core.files import broken_member, replacing
from coft.core.finite import check_models
from coft.core.method_errors import MethodError
from coft.method.protocol import Method, Runtime

FILE = "resume.pt"


def write(folder: Path, epochs: int, method: Method, runtime: Runtime) -> None:
    """Write the state after some epochs."""
    parts: dict[str, Any] = {
        name: {
            "model": model.state_dict(),
            "optimizer": method.optimizers[name].state_dict(),
            "scheduler": method.schedulers[name].state_dict(),
        }
        for name, model in method.models.items()
    }
    scaler = None if runtime.scaler is None else runtime.scaler.state_dict()
    with replacing(folder / FILE) as draft, draft.open("wb") as file:  # torch's own writer hides what a disk says
        torch.save({"epochs": epochs, "parts": parts, "scaler": scaler}, file)


def restore(folder: Path, method: Method, runtime: Runtime) -> int:
    """Take over the state that `write` left, if there is one.

    Returns:
        Epochs that are done.

    Raises:
        UserError: If it cannot be read, or is of another run.
    """
    path = folder / FILE
    if not path.is_file():
        return 0
    if broken := broken_member(path):
        raise UserError(f"{path}: is damaged (checksum of {broken}); remove the folder, and give the command again")
    try:
        state = torch.load(path, map_location=runtime.device, weights_only=True)
        for name, part in state["parts"].items():
            method.models[name].load_state_dict(part["model"])  # first: it enters the phase
            method.optimizers[name].load_state_dict(part["optimizer"])
            method.schedulers[name].load_state_dict(part["scheduler"])
        if runtime.scaler is not None and state["scaler"]:
            runtime.scaler.load_state_dict(state["scaler"])
    except (MethodError, RuntimeError, KeyError, ValueError, OSError, EOFError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: no state that this run can go on from ({reason}); remove the folder") from error
    except Exception as error:  # what torch's unpickler makes of damaged bytes has no common class
        raise UserError(f"{path}: cannot be read; remove the folder") from error
    check_models(method.models, str(path), "remove the folder, and give the command again with a lower rate")
    method.loaded()
    return int(state["epochs"])


def remove(folder: Path) -> None:
    """The run is at its end."""
    (folder / FILE).unlink(missing_ok=True)
