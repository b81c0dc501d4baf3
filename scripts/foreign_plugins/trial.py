"""A trial of a trainer: train it, evaluate what was trained, kill it and let it go on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .plugins import CoOpStyle
from .process import Failed

NOT_DONE = "-"


@dataclass
class Row:
    """A line of the table.

    Attributes:
        plugin: Name of the checkout.
        trainer: Name of the trainer.
        trained: How long.
        evaluated: Accuracy after training, and again when loaded from its checkpoint.
        resumed: What became of a run that was killed in its second epoch and started again.
        note: Why the trial ended early.
    """

    plugin: str
    trainer: str
    trained: str = NOT_DONE
    evaluated: str = NOT_DONE
    resumed: str = NOT_DONE
    note: str = ""


def attempt(plugin: CoOpStyle, trainer: str, trains: bool) -> Row:
    """Try a trainer as far as it goes."""
    row = Row(plugin.host.checkout.name, trainer)
    folder = plugin.host.work / "output" / row.plugin / trainer
    try:
        if not trains:
            row.evaluated = f"{accuracy(plugin.evaluate(trainer, folder / 'evaluated'))} %"
            return row
        first = accuracy(plugin.train(trainer, folder / "whole"))
        row.trained = f"{plugin.epochs} epochs"
        second = accuracy(plugin.evaluate(trainer, folder / "evaluated", folder / "whole"))
        if first != second:
            raise Failed(f"{first} % after training, but {second} % from its checkpoint")
        row.evaluated = f"{second} %"
        row.resumed = resume(plugin, trainer, folder)
    except Failed as failure:
        row.note = str(failure)
    return row


def accuracy(output: str) -> float:
    """The last accuracy that was printed, percent.

    Raises:
        Failed: If there is none.
    """
    found = re.findall(r"^\* accuracy: ([\d.]+)%", output, flags=re.MULTILINE)
    if not found:
        raise Failed("printed no accuracy")
    return float(found[-1])


def resume(plugin: CoOpStyle, trainer: str, folder: Path) -> str:
    """Kill a run in its second epoch, start it again, and compare it with the one that nobody killed.

    Returns:
        `same bits` or `went on`.

    Raises:
        Failed: If it did not go on.
    """
    plugin.train(trainer, folder / "killed", kill_at="epoch [2/")
    output = plugin.train(trainer, folder / "killed")
    if "Found checkpoint" not in output or re.search(r"^epoch \[1/", output, flags=re.MULTILINE):
        raise Failed("began again from the first epoch after it was killed")
    return "same bits" if same(weights(folder / "whole"), weights(folder / "killed")) else "went on"


def weights(folder: Path) -> dict[str, Any]:
    """The last checkpoint of each model in an output folder: its tensors, by model and name."""
    found: dict[str, Any] = {}
    for pointer in sorted(folder.glob("*/checkpoint")):
        path = pointer.with_name(pointer.read_text(encoding="utf-8").strip())
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        found |= {f"{pointer.parent.name}/{name}": value for name, value in state.items()}
    return found


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two sets of tensors are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
