"""Lets this environment import `dassl` from a checkout of upstream's repository.

python link.py CHECKOUT

Nothing is built or copied: a `.pth` file puts the checkout on the path, and `dassl_on_current_torch` before it. An
environment that has a `dassl` already is left as it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

NAME = "upstream-dassl.pth"
PATCH = Path(__file__).resolve().parent / "patch"


class LinkError(Exception):
    """Why there is nothing to link, or no place for it; one line."""


def dassl_in_place() -> Path | None:
    """Folder that `dassl` is imported from at present."""
    spec = importlib.util.find_spec("dassl")
    return Path(spec.origin).resolve().parents[1] if spec and spec.origin else None


def link(checkout: Path, site_packages: Path) -> None:
    """Write the `.pth` file.

    Args:
        checkout: Folder with upstream's `dassl` package in it.
        site_packages: The environment's folder for packages.

    Raises:
        LinkError: If there is no such package, or another `dassl` is installed.
    """
    if not (checkout / "dassl" / "modeling").is_dir():
        raise LinkError("no dassl/modeling there; give the folder of a checkout of Dassl.pytorch")
    present = dassl_in_place()
    if present and present != checkout:
        raise LinkError(f"a dassl is installed here already ({present}); activate an environment without one")
    lines = [str(checkout), str(PATCH), "import dassl_on_current_torch"]
    draft = site_packages / f".{NAME}.{os.getpid()}.tmp"
    draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    draft.replace(site_packages / NAME)


def main(argv: Sequence[str]) -> int:
    """Link a checkout.

    Returns:
        0, or 2 with one line on what is wrong.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder of a checkout of Dassl.pytorch")
    parser.add_argument("--from", dest="start", type=Path, default=Path(), help="where a relative folder begins")
    args = parser.parse_args(argv)
    try:
        link((args.start / args.checkout.expanduser()).resolve(), Path(sysconfig.get_path("purelib")))
    except LinkError as error:
        print(f"error: --dassl upstream={args.checkout}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
