"""bash compat/dassl/trials.sh CHECKOUT ...: run unmodified third-party plugins on the `dassl` of this environment."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tabulate import tabulate
from tqdm import tqdm

import dassl

from .material import make_clips, make_digits
from .plugins import CoOpStyle, style_of
from .process import Failed, Host
from .trial import Row, attempt_anywhere


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


def trials(plugins: Sequence[CoOpStyle]) -> Iterator[Row]:
    """Yield a row of the table for every trainer of every plugin."""
    queue: list[tuple[CoOpStyle, str, bool]] = []
    for plugin in plugins:
        try:
            queue += [(plugin, trainer, trains) for trainer, trains in plugin.trainers().items()]
        except Failed as failure:
            yield Row(plugin.host.checkout.name, "(all)", note=str(failure), failed=True)
    for plugin, trainer, trains in tqdm(queue, "trainers", disable=None):
        yield attempt_anywhere(plugin, trainer, trains)


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
        rows = list(trials([style(Host(path, work)) for style, path in styles if style]))
    print(f"{dassl_in_use()}, torch {torch.__version__}")
    cells = [{name: cell for name, cell in asdict(row).items() if name != "failed"} for row in rows]
    print(tabulate(cells, headers="keys", tablefmt="github"))
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
