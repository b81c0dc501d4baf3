"""Puts tables that commands wrote into docs/results.md, and draws its plot of the experiments.

bash scripts/results.sh --benchmark FILE --experiments FILE ...    (--experiments again for more tables)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from coft.core.errors import Parser, UserError
from coft.core.exit_codes import guarded
from coft.core.files import replacing
from scripts.launch import ROOT
from scripts.paths import called_from, shown

from .experiments_figure import draw

DOCS = ROOT / "docs"
PAGE, PICTURE = DOCS / "results.md", DOCS / "experiments.png"
BLOCKS = ("bars", "benchmark", "experiments")  # the benchmark's first table stands before its others
BLOCK = re.compile(r"<!-- begin: ([\w-]+) -->\n(.*?)<!-- end: \1 -->", re.DOTALL)


def tables_of(text: str) -> dict[str, str]:
    """What a page has between its markers, by their names.

    Raises:
        UserError: If it has not the markers of each of `BLOCKS` once.
    """
    found = [(match[1], match[2]) for match in BLOCK.finditer(text)]
    if sorted(name for name, _ in found) != sorted(BLOCKS):
        raise UserError(f"{PAGE}: the page should have markers of {', '.join(BLOCKS)} once each; mend the page")
    return dict(found)


def filled(text: str, benchmark: Path | None = None, experiments: Sequence[Path] = ()) -> str:
    """A page with the tables of files between its markers; where there are none, it keeps its own.

    Raises:
        UserError: If a file cannot be read or has not the tables, or the page has not its markers.
    """
    tables = tables_of(text)
    if benchmark:
        tables |= _bars_apart(benchmark)
    if experiments:
        tables |= {"experiments": "\n\n".join(map(read_table, experiments)) + "\n"}
    return BLOCK.sub(lambda match: f"<!-- begin: {match[1]} -->\n{tables[match[1]]}<!-- end: {match[1]} -->", text)


def _bars_apart(path: Path) -> dict[str, str]:
    command, *parts = read_table(path).split("\n\n", 2)
    if len(parts) < 2 or not parts[0].startswith("| errors of "):
        raise UserError(f"{path}: has no table of bars; give the full.md that compare.sh --benchmark full wrote")
    return {"bars": f"{parts[0]}\n", "benchmark": f"{command}\n\n{parts[1]}\n"}


def read_table(path: Path) -> str:
    """Tables that a command wrote.

    Raises:
        UserError: If there are none.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give the .md file that the command wrote") from error


def write_page(argv: Sequence[str]) -> int:
    """Write the page and its plot. Returns the exit code."""
    parser = Parser(prog="scripts/results.sh", description="Put tables into docs/results.md, and draw its plot.")
    parser.add_argument(
        "--benchmark", type=called_from, metavar="FILE", help="the full.md of compare.sh --benchmark full"
    )
    parser.add_argument(
        "--experiments",
        type=called_from,
        action="append",
        default=[],
        metavar="FILE",
        help="the experiments.md of experiments.sh; again for more",
    )
    args = parser.parse_args(argv)
    text = filled(PAGE.read_text(encoding="utf-8"), args.benchmark, args.experiments)
    draw(PICTURE, tables_of(text)["experiments"])
    with replacing(PAGE) as draft:
        draft.write_text(text, encoding="utf-8")
    print(*(f"  {shown(path)}" for path in (PAGE, PICTURE)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: write_page(sys.argv[1:])))
