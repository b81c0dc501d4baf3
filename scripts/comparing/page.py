"""Puts tables that commands wrote into docs/results.md, and draws its plot of the experiments.

bash scripts/results.sh --benchmark FILE --experiments FILE ...    (again for more tables of one kind)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from coft.runtime.ending import guarded
from coft.runtime.errors import Parser, UserError
from coft.runtime.files import replacing
from scripts.launch import ROOT
from scripts.paths import called_from, shown

from .experiments_figure import draw

DOCS = ROOT / "docs"
PAGE, PICTURE = DOCS / "results.md", DOCS / "experiments.png"
SOURCES = ("benchmark", "experiments")  # whose tables are taken
BLOCKS = ("bars", *SOURCES)  # the first table of the benchmark stands before the others
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


def filled(text: str, files: Mapping[str, Sequence[Path]]) -> str:
    """A page with the tables of files between its markers; where there are none, it keeps its own.

    Raises:
        UserError: If a file cannot be read, or the page has not its markers.
    """
    given = {name: "\n\n".join(map(read_table, own)) + "\n" for name, own in files.items() if own}
    if "benchmark" in given:
        given |= _bars_apart(given["benchmark"])
    tables = tables_of(text) | given
    return BLOCK.sub(lambda match: f"<!-- begin: {match[1]} -->\n{tables[match[1]]}<!-- end: {match[1]} -->", text)


def _bars_apart(text: str) -> dict[str, str]:
    command, bars, *rest = text.split("\n\n", 2)
    if not rest or not bars.startswith("| errors of "):
        raise UserError(
            "--benchmark: there is no table of bars; give the full.md that compare.sh --benchmark full wrote"
        )
    return {"bars": f"{bars}\n", "benchmark": f"{command}\n\n{rest[0]}"}


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
    for name in SOURCES:
        help = f"take the tables of {name} from the .md file that its command wrote; again for more"
        parser.add_argument(f"--{name}", type=called_from, action="append", default=[], metavar="FILE", help=help)
    args = parser.parse_args(argv)
    text = filled(PAGE.read_text(encoding="utf-8"), {name: getattr(args, name) for name in SOURCES})
    draw(PICTURE, tables_of(text)["experiments"])
    with replacing(PAGE) as draft:
        draft.write_text(text, encoding="utf-8")
    print(*(f"  {shown(path)}" for path in (PAGE, PICTURE)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: write_page(sys.argv[1:])))
