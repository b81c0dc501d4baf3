"""The campaign's table: a row a category, on the screen, kept between calls, and in docs/reliability.md."""

from __future__ import annotations

import collections
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from coft.core.errors import UserError
from coft.core.experiment import write_json
from coft.core.files import replacing

from .case import Found, Result
from .messages import faults_of
from .scene import ROOT

PAGE = ROOT / "docs" / "reliability.md"
WHOLE, QUICK = "campaign", "campaign-quick"  # blocks of the page, between markers that name them
GOOD = (Found.CORRECT.value, Found.CLEAN.value)


@dataclass(frozen=True)
class Row:
    """What came of a category.

    Attributes:
        category: Its name.
        version: Of the project that was played against.
        found: How often what was found, by its name.
        poor: Messages that do not help.
        seconds: That it took.
    """

    category: str
    version: str
    found: dict[str, int]
    poor: int
    seconds: float

    @property
    def cases(self) -> int:
        """How many there were."""
        return sum(self.found.values())

    @property
    def faults(self) -> int:
        """How many of them are faults of the project."""
        return sum(count for name, count in self.found.items() if name not in GOOD) + self.poor


def counted(category: str, results: Sequence[Result], seconds: float) -> Row:
    """Count what came of the cases of a category."""
    counts = collections.Counter(result.found.value for result in results)
    found = {name.value: counts[name.value] for name in Found}
    return Row(category, version(), found, sum(bool(faults_of(result)) for result in results), seconds)


def table(rows: Sequence[Row]) -> str:
    """How often what was found, by category."""
    lines: list[list[Any]] = [[row.category, row.cases, *row.found.values(), row.poor] for row in rows]
    total = ["all", *(sum(line[i] for line in lines) for i in range(1, len(Found) + 3))]
    return tabulate([*lines, total], ["category", "cases", *(f.value for f in Found), "poor message"], "github")


def in_words(rows: Sequence[Row]) -> str:
    """How many cases there were, and how long they took."""
    return f"{sum(row.cases for row in rows):,} cases in {sum(row.seconds for row in rows):,.0f} seconds"


# -------------------------------------------------------------------- kept between calls


def keep(row: Row, folder: Path) -> None:
    """Keep a row, so that a campaign that is stopped goes on after it."""
    write_json(folder / f"{row.category}.json", asdict(row))


def kept(category: str, folder: Path) -> Row | None:
    """The row of a category that was played against this version; None if there is none."""
    try:
        row = Row(**json.loads((folder / f"{category}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return row if row.version == version() else None


# -------------------------------------------------------------------- on the page


def write(rows: Sequence[Row], quick: bool, page: Path = PAGE) -> None:
    """Write what came of a campaign to the page on reliability, between its markers.

    Args:
        rows: Of all categories.
        quick: Whether it was the quick form: of it, the page has a line alone.
        page: The page.

    Raises:
        UserError: If the page has no such markers.
    """
    said = f"`bash scripts/faults.sh{' --quick' if quick else ''}`: {in_words(rows)}, at {version()}."
    block = f"{said} Faults: {sum(row.faults for row in rows)}." if quick else f"{said}\n\n{table(rows)}"
    text = filled(page.read_text(encoding="utf-8"), QUICK if quick else WHOLE, block)
    with replacing(page) as draft:
        draft.write_text(text, encoding="utf-8")


def filled(text: str, name: str, block: str) -> str:
    """Put a block between the markers that name it.

    Raises:
        UserError: If the text does not have them once.
    """
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    pattern = re.compile(rf"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise UserError(f"{PAGE.name}: has no place for the table; write {begin} and {end} on two lines")
    return pattern.sub(lambda match: f"{begin}\n{block}\n{end}", text)


def version() -> str:
    """The version of the project that is played against, as git names it."""
    commit = git("rev-parse", "--short=8", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{PAGE.relative_to(ROOT)}")
    return f"version {commit or 'unknown'}{' with changes' if changed else ''}"


def git(*words: str) -> str:
    """What git says; nothing where there is none."""
    said = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() if said.returncode == 0 else ""
