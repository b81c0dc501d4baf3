"""Writes the tables and the pictures of docs/results.md.

bash scripts/results.sh            (rewrites docs/results.md between its markers, and its pictures)
bash scripts/results.sh --check    (writes nothing; 1 if the page is not what would be written)
bash scripts/results.sh --benchmark FILE --experiments FILE ...    (also takes tables that these commands wrote)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from coft.runtime.ending import guarded
from coft.runtime.errors import Parser, UserError
from coft.runtime.files import replacing
from scripts.launch import ROOT
from scripts.paths import called_from, shown

from ..experiments_figure import draw
from ..gain import gain_over_zero_shot, write_gain
from ..results import listed_rows
from ..statistics import summarise
from .blocks import all_blocks
from .cells import BACKBONES, DATASETS, METHODS

DOCS = ROOT / "docs"
PAGE, RUNS, KEPT, PICTURE = (DOCS / name for name in ("results.md", "runs.csv", "summaries.csv", "gain.png"))
EXPERIMENTS = DOCS / "experiments.png"
PHOTOGRAPHS = DOCS / "photographs.csv"  # as runs.csv
TAKEN = ("benchmark", "experiments")  # blocks that are as a command wrote them, until it writes others
BLOCK = re.compile(r"<!-- begin: ([\w-]+) -->\n(.*?)<!-- end: \1 -->", re.DOTALL)


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Put blocks between the markers that name them.

    Raises:
        UserError: If the text has a marker of no block, or no marker of a block.
    """
    named = {match[1] for match in BLOCK.finditer(text)}
    if odd := sorted(named ^ blocks.keys()):
        raise UserError(
            f"{odd[0]}: there should be a table of this name, and the page should have its markers once; mend the page"
        )
    return BLOCK.sub(lambda match: f"<!-- begin: {match[1]} -->\n{blocks[match[1]]}\n<!-- end: {match[1]} -->", text)


def page_as_written(taken: Mapping[str, Sequence[Path]] | None = None) -> str:
    """The page with the tables that follow from the lists.

    Args:
        taken: Files with new tables, by names of `TAKEN`.

    Raises:
        UserError: If one cannot be read.
    """
    page = PAGE.read_text(encoding="utf-8")
    blocks = {match[1]: match[2].rstrip("\n") for match in BLOCK.finditer(page) if match[1] in TAKEN}
    blocks |= {name: "\n\n".join(map(read_table, files)) for name, files in (taken or {}).items() if files}
    blocks |= all_blocks(listed_rows(RUNS), pd.read_csv(KEPT, dtype={"row": str}), listed_rows(PHOTOGRAPHS))
    return fill(page, blocks)


def read_table(path: Path) -> str:
    """Tables that a command wrote.

    Raises:
        UserError: If there are none.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give the .md file that the command wrote") from error


def draw_gains() -> None:
    """Draw the gains of the methods that the page compares."""
    runs = listed_rows(RUNS)
    runs = runs[runs["method"].isin(METHODS)]
    names = {"method": METHODS, "dataset": DATASETS, "backbone": BACKBONES}
    named = {column: runs[column].map(known).str.strip("*") for column, known in names.items()}
    write_gain(PICTURE, gain_over_zero_shot(summarise(runs.assign(**named))))


def write_page(argv: Sequence[str]) -> int:
    """Write the page and its pictures, or check the page. Returns the exit code."""
    parser = Parser(prog="scripts/results.sh", description="Write the tables and the pictures of docs/results.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page would change")
    for name in TAKEN:
        help = f"take the tables of {name} from the .md file that its command wrote; again for more"
        parser.add_argument(f"--{name}", type=called_from, action="append", default=[], metavar="FILE", help=help)
    args = parser.parse_args(argv)
    text = page_as_written({name: getattr(args, name) for name in TAKEN})
    if args.check:
        return int(text != PAGE.read_text(encoding="utf-8"))
    draw(EXPERIMENTS, next(match[2] for match in BLOCK.finditer(text) if match[1] == "experiments"))
    draw_gains()
    with replacing(PAGE) as draft:
        draft.write_text(text, encoding="utf-8")
    print(*(f"  {shown(path)}" for path in (PAGE, PICTURE, EXPERIMENTS)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: write_page(sys.argv[1:])))
