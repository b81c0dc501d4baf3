"""Get data sets ready: `bash scripts/data.sh NAME [NAME ...]`, `all`, or `list`.

Icons and emoji are drawn from npm packages (Node.js is needed); digits ship inside scikit-learn; others are downloaded.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from coft.core.errors import Parser, UserError, did_you_mean  # noqa: E402
from coft.core.exit_codes import guarded  # noqa: E402
from coft.core.paths import cache_folder  # noqa: E402
from datasets.digits import write_digits  # noqa: E402
from datasets.torchvision_sets import SETS  # noqa: E402
from scripts.getting.lay_out import get, is_there  # noqa: E402
from scripts.getting.shrunk import write_shrunk  # noqa: E402
from scripts.getting.sources import ORIGINS, TORCHVISION  # noqa: E402
from scripts.paths import called_from, data_folder  # noqa: E402


@dataclass(frozen=True)
class Made:
    """A data set that is made on this machine.

    Attributes:
        split: File below the data root that is there when the data set is.
        what: What it is, in a few words.
        build: Makes it below the data root.
    """

    split: str
    what: str
    build: Callable[[Path], object]


def _drawings(name: str) -> Callable[[Path], object]:
    def build(root: Path) -> object:
        from weights.pretrain.heldout import build  # needs what only this script and pretrain.sh install

        cache = Path(os.environ.get("COFT_CACHE") or cache_folder() / "pretrain")
        return build(name, root, cache)

    return build


MADE = {
    "digits": Made(
        "digits/split_digits.json", "UCI digits of scikit-learn", lambda root: write_digits(root / "digits")
    ),
    "icons": Made("icons/split_icons.json", "icons of held-out sets, drawn from npm packages", _drawings("icons")),
    "emoji": Made("emoji/split_emoji.json", "emoji of held-out vendors, drawn from npm packages", _drawings("emoji")),
}
LARGEST = 1024  # pixels to shrink to: no set of torchvision's has as many
NAMES = [*MADE, *TORCHVISION, *ORIGINS]


def present(name: str, root: Path) -> bool:
    """Whether a data set is in place."""
    return (root / MADE[name].split).is_file() if name in MADE else is_there(name, root)


def place_of(name: str, root: Path) -> Path:
    """Where a data set is, or belongs."""
    origin = ORIGINS.get(name)
    return origin.find(root) or root / origin.folder if origin else root / name


def how(name: str) -> str:
    """How a data set is had, in a word."""
    if name in MADE:
        return "made"
    return "by hand" if name in ORIGINS and ORIGINS[name].steps else "download"


def make_ready(name: str, root: Path) -> str:
    """Make or download a data set, unless it is there.

    Returns:
        What was done, in one line.

    Raises:
        UserError: If it is unknown, cannot be had, or has to be put there by hand.
    """
    if name not in NAMES:
        raise UserError(f"unknown data set {name!r}; {did_you_mean(name, [*NAMES, 'all', 'list'])}")
    place = place_of(name, root)
    if present(name, root):
        return f"{name}: is at {place}"
    if name in MADE:
        MADE[name].build(root)
        return f"{name}: made at {place}"
    for note in get(name, root):
        logging.warning("%s: %s", name, note)
    if not present(name, root):
        print(f"{name}: {ORIGINS[name].what}\n{steps(name)}")
        raise UserError(f"{name}: nothing at {place}; it has to be put there by hand, as said above")
    return f"{name}: downloaded to {place}"


def steps(name: str) -> str:
    """What is to be done by hand, numbered."""
    return "\n".join(f"  {i}. {step}" for i, step in enumerate(ORIGINS[name].steps, start=1))


def listing(root: Path) -> str:
    """A table of all data sets and whether they are there, and what is to be done by hand."""
    what = {name: made.what for name, made in MADE.items()} | {name: origin.what for name, origin in ORIGINS.items()}
    what |= {name: f"torchvision's, {len(SETS[kind].classnames)} classes" for name, kind in TORCHVISION.items()}
    rows = [(name, "yes" if present(name, root) else "no", how(name), what[name]) for name in NAMES]
    table = tabulate(rows, headers=["data set", f"in {root}", "how", "what"])
    by_hand = "\n".join(f"{name}\n{steps(name)}" for name in ORIGINS if ORIGINS[name].steps)
    return f"{table}\n\nBy hand:\n{by_hand}"


def make(name: str, root: Path, pixels: int) -> int:
    """Make a data set and, if pixels are given, its harder copy; or say which there are. Returns the exit code."""
    print(listing(root) if name == "list" else make_ready(name, root))
    if pixels:
        print(f"{name}: its images at {pixels} pixels are below {write_shrunk(name, root, pixels)}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Make data sets.

    Returns:
        0, or 2 if one is not ready.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return guarded(lambda: make_all(argv))


def make_all(argv: Sequence[str] | None) -> int:
    """Make the data sets that are named; one that cannot be had leaves the others be. Returns the exit code."""
    parser = Parser(prog="scripts/data.sh", description="Get data sets ready.")
    parser.add_argument("names", nargs="*", default=["list"], help="data sets, 'all', or 'list'")
    parser.add_argument("--data", type=called_from, default=data_folder(), help="default: $DATA or data")
    parser.add_argument("--shrunk-to", type=int, default=0, metavar="N", help="write a copy of so many pixels, too")
    args = parser.parse_args(argv)
    if not 0 <= args.shrunk_to <= LARGEST:
        raise UserError(f"--shrunk-to is {args.shrunk_to}; expected a number of pixels from 1 to {LARGEST}")
    failed = 0
    for name in itertools.chain.from_iterable(NAMES if word == "all" else [word] for word in args.names):
        failed = max(failed, guarded(partial(make, name, args.data, args.shrunk_to)))
    return failed


if __name__ == "__main__":
    sys.exit(main())
