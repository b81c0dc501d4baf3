"""bash compat/dassl/trials.sh CHECKOUT ...: run unmodified third-party plugins on the `dassl` of this environment."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from tqdm import tqdm

import dassl

from .material import make_clips, make_digits
from .plugins import CoOpStyle, Failed, style_of

Row = dict[str, str]  # a row of the table


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments, and check the checkouts."""
    parser = argparse.ArgumentParser(prog="compat/dassl/trials.sh", description=__doc__)
    parser.add_argument("--keep", help="folder for logs and checkpoints; else they are thrown away")
    parser.add_argument("checkouts", nargs="+", metavar="CHECKOUT", help="folder of a plugin, such as CoOp or UPL")
    args = parser.parse_args(argv)
    args.checkouts = [as_written(path) for path in args.checkouts]
    args.keep = as_written(args.keep) if args.keep else None
    if args.keep and args.keep.exists() and any(args.keep.iterdir()):
        parser.error(f"--keep {args.keep}: not empty; give a new folder")
    for path in args.checkouts:
        if style_of(path) is None:
            parser.error(f"{path}: no train.py there; give the folder that holds a plugin's train.py or upl_train.py")
    return args


def as_written(path: str) -> Path:
    """Resolve a user's path; relative paths are relative to $CALLED_FROM, the folder of the script's caller."""
    return (Path(os.environ.get("CALLED_FROM", "")) / Path(path).expanduser()).resolve()


def dassl_in_use() -> str:
    """Return name and version of the distribution that `dassl` is imported from."""
    for name in importlib.metadata.packages_distributions().get("dassl", []):
        return f"{name} {importlib.metadata.version(name)}"
    return f"dassl {dassl.__version__} (not installed as a distribution)"


def empty_row(plugin: CoOpStyle, trainer: str) -> Row:
    """Return the row of a trainer of which nothing is known."""
    row = {"plugin": plugin.checkout.name, "trainer": trainer}
    return row | dict.fromkeys(("trained", "evaluated", "resumed"), "-") | {"note": ""}


def attempt(plugin: CoOpStyle, trainer: str, trains: bool) -> Row:
    """Try a trainer, until a step fails; the note of the row then says why."""
    folder = plugin.work / "output" / plugin.checkout.name / trainer
    row = empty_row(plugin, trainer)
    try:
        if not trains:
            row["evaluated"] = f"{accuracy(plugin.evaluate(trainer, folder / 'evaluated'))} %"
            return row
        output = plugin.train(trainer, folder / "whole")
        row["trained"] = f"{plugin.epochs} epochs, {losses(output)}"
        first = accuracy(output)
        second = accuracy(plugin.evaluate(trainer, folder / "evaluated", folder / "whole"))
        if first != second:
            raise Failed(f"{first} % after training, but {second} % from its checkpoint")
        row["evaluated"] = f"{second} %"
        row["resumed"] = resume(plugin, trainer, folder)
    except Failed as failure:
        row["note"] = str(failure)
    return row


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


def trials(plugins: Sequence[CoOpStyle]) -> Iterator[Row]:
    """Yield a row of the table for every trainer of every plugin."""
    queue: list[tuple[CoOpStyle, str, bool]] = []
    for plugin in plugins:
        try:
            queue += [(plugin, trainer, trains) for trainer, trains in plugin.trainers().items()]
        except Failed as failure:
            yield empty_row(plugin, "(all)") | {"note": str(failure)}
    for plugin, trainer, trains in tqdm(queue, "trainers", disable=None):
        yield attempt(plugin, trainer, trains)


def main(argv: Sequence[str]) -> int:
    """Run the trials and print the table.

    Returns:
        0, or 1 if a trainer failed.
    """
    args = parse(argv)
    with tempfile.TemporaryDirectory(prefix="foreign-plugins-") as scratch:
        work = args.keep or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        make_clips(work / "clips")
        make_digits(work / "data")
        styles = [(style_of(path), path) for path in args.checkouts]
        rows = list(trials([style(path, work) for style, path in styles if style]))
    print(f"{dassl_in_use()}, torch {torch.__version__}")
    print(tabulate(rows, headers="keys", tablefmt="github"))
    return int(any(row["note"] for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
