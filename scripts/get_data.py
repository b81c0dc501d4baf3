"""Get data sets ready: `bash scripts/data.sh NAME [NAME ...]`, or `list`.

Icons and emoji are drawn from npm packages (Node.js is needed); digits ship inside scikit-learn.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from datasets.digits import write_digits  # noqa: E402
from datasets.errors import UserError, did_you_mean  # noqa: E402


@dataclass(frozen=True)
class Source:
    """How a data set is had.

    Attributes:
        split: File below the data root that is there when the data set is.
        what: What it is, in a few words.
        build: Makes it below the data root; None where it has to be put there by hand.
    """

    split: str
    what: str
    build: Callable[[Path], object] | None


def _drawings(name: str) -> Callable[[Path], object]:
    def build(root: Path) -> object:
        from weights.pretrain.heldout import build  # needs what only this script and pretrain.sh install

        cache = Path(os.environ.get("COFT_CACHE", ROOT / "cache" / "pretrain"))
        return build(name, root, cache)

    return build


SOURCES = {
    "digits": Source(
        "digits/split_digits.json", "UCI digits of scikit-learn", lambda root: write_digits(root / "digits")
    ),
    "icons": Source("icons/split_icons.json", "icons of held-out sets, from npm", _drawings("icons")),
    "emoji": Source("emoji/split_emoji.json", "emoji of held-out vendors, from npm", _drawings("emoji")),
    "eurosat": Source(
        "eurosat/split_zhou_EuroSAT.json", "satellite views, in CoOp's layout: put it there by hand", None
    ),
}


def make_ready(name: str, root: Path) -> str:
    """Make a data set, unless it is there.

    Returns:
        What was done, in one line.

    Raises:
        UserError: If it is unknown, or has to be put there by hand.
    """
    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r}; {did_you_mean(name, SOURCES)}")
    source = SOURCES[name]
    if (root / source.split).is_file():
        return f"{name}: is at {root / name}"
    if source.build is None:
        raise UserError(f"{name}: nothing at {root / name}; {source.what}")
    source.build(root)
    return f"{name}: made at {root / name}"


def listing(root: Path) -> str:
    """A table of all data sets and whether they are there."""
    rows = [(name, ((root / s.split).is_file() and "yes") or "no", s.what) for name, s in SOURCES.items()]
    return tabulate(rows, headers=["data set", f"in {root}", "what"])


def main(argv: Sequence[str] | None = None) -> int:
    """Make data sets.

    Returns:
        0, or 2 after a mistake of the user's.
    """
    parser = argparse.ArgumentParser(prog="scripts/data.sh", description="Get data sets ready.")
    parser.add_argument("names", nargs="*", default=["list"], help="data sets, or 'list'")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("DATA", "data")), help="default: $DATA or data"
    )
    args = parser.parse_args(argv)
    try:
        for name in args.names:
            print(listing(args.data) if name == "list" else make_ready(name, args.data))
    except UserError as error:
        print(f"error: {error.line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
