"""Prepare data sets: `bash scripts/data.sh NAME [NAME ...]`, `all`, or `list`.

Icons and emoji are drawn from npm packages, which needs Node.js. Digits come with scikit-learn. Others are downloaded.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tabulate import tabulate

from coft.core.errors import Parser, UserError, did_you_mean
from coft.core.exit_codes import guarded
from datasets.digits import write_digits
from datasets.torchvision_sets import SETS
from scripts.getting.lay_out import get, get_split, is_in_place
from scripts.getting.sources import ORIGINS, TORCHVISION
from scripts.paths import called_from, data_folder, pretraining_cache


@dataclass(frozen=True)
class Built:
    """A data set that is built on this machine.

    Attributes:
        split: Path of its split file below the data root. The data set is complete if the file exists.
        description: A short description.
        build: Builds it below the data root.
    """

    split: str
    description: str
    build: Callable[[Path], object]


def _drawings(name: str) -> Callable[[Path], object]:
    def build(root: Path) -> object:
        from weights.pretrain.heldout import build  # needs packages that only data.sh and pretrain.sh install

        return build(name, root, pretraining_cache())

    return build


BUILT = {
    "digits": Built(
        "digits/split_digits.json", "UCI digits of scikit-learn", lambda root: write_digits(root / "digits")
    ),
    "icons": Built("icons/split_icons.json", "icons of held-out sets, drawn from npm packages", _drawings("icons")),
    "emoji": Built("emoji/split_emoji.json", "emoji of held-out vendors, drawn from npm packages", _drawings("emoji")),
}
NAMES = [*BUILT, *TORCHVISION, *ORIGINS]


def is_present(name: str, root: Path) -> bool:
    """Return whether a data set is in place."""
    return (root / BUILT[name].split).is_file() if name in BUILT else is_in_place(name, root)


def folder_of(name: str, root: Path) -> Path:
    """Return the folder of a data set, which may not exist."""
    origin = ORIGINS.get(name)
    return origin.find(root) or root / origin.folder if origin else root / name


def source_of(name: str) -> str:
    """Return how a data set is obtained: "made", "by hand" or "download"."""
    if name in BUILT:
        return "made"
    return "by hand" if name in ORIGINS and ORIGINS[name].steps else "download"


def prepare(name: str, root: Path) -> str:
    """Build or download a data set, unless it is in place.

    Args:
        name: Name of the data set.
        root: Data root.

    Returns:
        A line about what was done.

    Raises:
        UserError: If the name is unknown, a download fails, or files must be put in place by hand.
    """
    if name not in NAMES:
        raise UserError(f"unknown data set {name!r}; {did_you_mean(name, [*NAMES, 'all', 'list'])}")
    folder = folder_of(name, root)
    present = is_present(name, root)
    if name in BUILT and not present:
        BUILT[name].build(root)
        return f"{name}: made at {folder}"
    for note in get_split(name, root) if present else get(name, root):
        logging.warning("%s: %s", name, note)
    if present:
        return f"{name}: is at {folder}"
    if not is_present(name, root):
        print(f"{name}: {ORIGINS[name].description}\n{steps(name)}")
        raise UserError(f"{name}: nothing at {folder}; it has to be put there by hand, as said above")
    return f"{name}: downloaded to {folder}"


def steps(name: str) -> str:
    """Return the steps that a user has to do by hand, numbered."""
    return "\n".join(f"  {i}. {step}" for i, step in enumerate(ORIGINS[name].steps, start=1))


def listing(root: Path) -> str:
    """Return a table of all data sets that shows which are in place, and the steps to do by hand."""
    descriptions = {name: dataset.description for name, dataset in BUILT.items()}
    descriptions |= {name: origin.description for name, origin in ORIGINS.items()}
    descriptions |= {name: f"torchvision's, {len(SETS[kind].classnames)} classes" for name, kind in TORCHVISION.items()}
    rows = [(name, "yes" if is_present(name, root) else "no", source_of(name), descriptions[name]) for name in NAMES]
    table = tabulate(rows, headers=["data set", f"in {root}", "how", "what"])
    by_hand = "\n".join(f"{name}\n{steps(name)}" for name in ORIGINS if ORIGINS[name].steps)
    return f"{table}\n\nBy hand:\n{by_hand}"


def make(name: str, root: Path) -> int:
    """Prepare a data set, or list all data sets. Returns the exit code."""
    print(listing(root) if name == "list" else prepare(name, root))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0, or 2 if a data set is not in place.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return guarded(lambda: make_all(argv))


def make_all(argv: Sequence[str] | None) -> int:
    """Prepare the named data sets. If one fails, the others are still prepared. Returns the exit code."""
    parser = Parser(prog="scripts/data.sh", description="Download and prepare data sets.")
    parser.add_argument("names", nargs="*", default=["list"], help="data sets, 'all', or 'list'")
    parser.add_argument("--data", type=called_from, default=data_folder(), help="default: $DATA or data")
    args = parser.parse_args(argv)
    failed = 0
    for name in itertools.chain.from_iterable(NAMES if word == "all" else [word] for word in args.names):
        failed = max(failed, guarded(partial(make, name, args.data)))
    return failed


if __name__ == "__main__":
    sys.exit(main())
