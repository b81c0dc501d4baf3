"""Trial of a trainer: train it, evaluate the result, kill a second run and resume it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .plugins import CoOpStyle
from .process import HARD_CODED, Failed, Host

NOT_DONE = "-"


@dataclass
class Row:
    """A row of the table.

    Attributes:
        plugin: Name of the checkout.
        trainer: Name of the trainer.
        trained: Number of epochs, and mean loss of the first and the last epoch.
        evaluated: Accuracy, which is the same after training and when loaded from the checkpoint.
        resumed: Result of a run that was killed in its second epoch and resumed.
        note: Why the trial ended early, or what had to be patched.
        failed: Whether the trial ended early.
    """

    plugin: str
    trainer: str
    trained: str = NOT_DONE
    evaluated: str = NOT_DONE
    resumed: str = NOT_DONE
    note: str = ""
    failed: bool = False


def attempt(plugin: CoOpStyle, trainer: str, trains: bool) -> Row:
    """Try a trainer, until a step fails."""
    row = Row(plugin.host.checkout.name, trainer)
    folder = plugin.host.work / "output" / row.plugin / trainer
    try:
        if not trains:
            row.evaluated = f"{accuracy(plugin.evaluate(trainer, folder / 'evaluated'))} %"
            return row
        output = plugin.train(trainer, folder / "whole")
        row.trained = f"{plugin.epochs} epochs, {losses(output)}"
        first = accuracy(output)
        second = accuracy(plugin.evaluate(trainer, folder / "evaluated", folder / "whole"))
        if first != second:
            raise Failed(f"{first} % after training, but {second} % from its checkpoint")
        row.evaluated = f"{second} %"
        row.resumed = resume(plugin, trainer, folder)
    except Failed as failure:
        row.note, row.failed = str(failure), True
    return row


def attempt_anywhere(plugin: CoOpStyle, trainer: str, trains: bool) -> Row:
    """Try a trainer; one that hard-codes `.cuda()` is tried again with `.cuda()` patched to do nothing."""
    first = attempt(plugin, trainer, trains)
    if not first.note.startswith(HARD_CODED):
        return first
    host = Host(plugin.host.checkout, plugin.host.work, stay_on_cpu=True)
    second = attempt(type(plugin)(host), trainer, trains)
    second.note = f"{first.note}, kept on the CPU" + (f"; {second.note}" if second.failed else "")
    return second


def accuracy(output: str) -> float:
    """Return the last accuracy in the output, in percent.

    Raises:
        Failed: If there is none.
    """
    accuracies = re.findall(r"^\* accuracy: ([\d.]+)%", output, flags=re.MULTILINE)
    if not accuracies:
        raise Failed("printed no accuracy")
    return float(accuracies[-1])


def losses(output: str) -> str:
    """Return the mean losses of the first and the last logged epoch, as text.

    Raises:
        Failed: If one is missing or not finite.
    """
    of_epochs = dict(re.findall(r"^epoch \[(\d+)/.*\bloss \S+ \((\d+\.\d+)\)", output, flags=re.MULTILINE))
    if len(of_epochs) < 2:
        raise Failed("logged no finite losses")
    values = list(of_epochs.values())
    return f"loss {values[0]} to {values[-1]}"


def resume(plugin: CoOpStyle, trainer: str, folder: Path) -> str:
    """Kill a run in its second epoch, resume it, and compare it with the run that was not killed.

    Returns:
        `same bits` if all weights are bitwise equal, else `went on`.

    Raises:
        Failed: If the run was not resumed.
    """
    plugin.train(trainer, folder / "killed", kill_at="epoch [2/")
    output = plugin.train(trainer, folder / "killed")
    if "Found checkpoint" not in output or re.search(r"^epoch \[1/", output, flags=re.MULTILINE):
        raise Failed("began again from the first epoch after it was killed")
    return "same bits" if same(weights(folder / "whole"), weights(folder / "killed")) else "went on"


def weights(folder: Path) -> dict[str, Any]:
    """Read the tensors of each model's last checkpoint in an output folder, by model and name."""
    tensors: dict[str, Any] = {}
    for pointer in sorted(folder.glob("*/checkpoint")):
        path = pointer.with_name(pointer.read_text(encoding="utf-8").strip())
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        tensors |= {f"{pointer.parent.name}/{name}": value for name, value in state.items()}
    return tensors


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Return whether two sets of tensors are bitwise equal."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
