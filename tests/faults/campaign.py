"""All cases by category, those of the quick form, and what came of them: kept between calls, and on the page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from coft.core.errors import UserError
from coft.core.experiment import write_json
from coft.core.files import replacing

from . import annotations, benchmarks, clips, formats, histories, keys, places, processes, runs, words
from .drawing import chosen
from .formats import Format
from .oracle import GOOD, SECRET, Case, Found, Result, play
from .scene import ROOT, Scene

PAGE = ROOT / "docs" / "reliability.md"
CATEGORIES: dict[str, tuple[Callable[[], Iterable[Case | Format]], ...]] = {  # and what makes their cases
    "settings": (keys.wrong_values,),
    "command-line": (words.flags, formats.configs),
    "images": (formats.images, places.scenes),
    "classes": (words.names, formats.classes),
    "checkpoints": (clips.backbones, clips.open_clips, runs.checkpoints),
    "splits": (formats.splits, annotations.annotations),
    "folders": (runs.left_files, runs.caches, places.scenes),
    "places": (places.folders, places.scenes),
    "archives": (formats.archives,),
    "benchmarks": (benchmarks.benchmarks,),
    "endpoint": (words.replies,),
    "numbers": (clips.backbones, runs.checkpoints, runs.left_files),
    "values": (keys.end_values,),
    "histories": (histories.drawn_histories,),
    "processes": (processes.disturbed,),
    "environments": (processes.surroundings,),
}
SHARES = {  # of how many cases the quick form plays one, where all take minutes
    **{"settings": 7, "checkpoints": 3, "folders": 5, "places": 3, "numbers": 2},
    **{"values": 23, "histories": 4, "processes": 13, "environments": 14},
}


def cases_of(category: str, quick: bool) -> list[Case]:
    """Cases of a category."""
    made = [item for make in CATEGORIES[category] for item in make()]
    cases = [case for item in made for case in (item.cases() if isinstance(item, Format) else [item])]
    return [case for case in cases if case.category == category][:: SHARES.get(category, 1) if quick else 1]


def play_all(cases: Iterable[Case], shared: Path) -> Iterator[Result]:
    """Play cases, each in a folder of its own below that of what they share."""
    os.environ["OPENAI_API_KEY"] = SECRET
    for case in cases:
        place = Path(tempfile.mkdtemp(prefix="case-", dir=shared))
        try:
            yield play(case, Scene(shared, place))
        finally:
            shutil.rmtree(place, ignore_errors=True)


def played(category: str, quick: bool, shared: Path, show: Callable[[Result], object]) -> pd.DataFrame:
    """Play a category: a row a case, with what was found."""
    rows, cases, started = [], cases_of(category, quick), time.monotonic()
    for result in tqdm(play_all(cases, shared), category, len(cases), unit="case", disable=None, leave=False):
        show(result)
        rows.append({"category": category, "case": result.case.name, "found": result.found.value, "line": result.line})
    return pd.DataFrame(rows).assign(seconds=(time.monotonic() - started) / len(rows), version=version())


def keep(results: pd.DataFrame, folder: Path) -> None:
    """Keep what came of a category, so that a campaign that is stopped goes on after it."""
    write_json(folder / f"{results.category[0]}.json", results.to_dict("records"))


def kept(category: str, folder: Path) -> pd.DataFrame | None:
    """What came of a category that was played against this version; None if there is nothing."""
    try:
        results = pd.DataFrame(json.loads((folder / f"{category}.json").read_text(encoding="utf-8")))
        return results if set(results.version) == {version()} else None
    except (OSError, ValueError, AttributeError):
        return None


def faults(results: pd.DataFrame) -> int:
    """How many results are faults of the project."""
    return int((~results.found.isin([found.value for found in GOOD])).sum())


def table(results: pd.DataFrame) -> str:
    """How often what was found, by category; of what there was."""
    counts = pd.crosstab(results.category, results.found, margins=True, margins_name="all")
    rows = [*results.category.unique(), "all"]
    columns = ["all", *(kind.value for kind in Found if kind.value in counts)]
    counts = counts.reindex(index=rows, columns=columns).rename(columns={"all": "cases"})
    return counts.rename_axis("category").to_markdown(tablefmt="github")


def in_words(results: pd.DataFrame) -> str:
    """How many cases there were, and how long they took."""
    return f"{len(results):,} cases in {results.seconds.sum():,.0f} seconds"


def write(results: pd.DataFrame, page: Path = PAGE) -> None:
    """Write what came of all categories to the page on reliability, between its markers.

    Raises:
        UserError: If the page has no such markers.
    """
    line = f"`bash scripts/faults.sh`: {in_words(results)}, at {results.version[0]}. Faults: {faults(results)}."
    block = f"{line}\n\n{table(results)}"
    begin, end = (f"<!-- {word}: campaign -->" for word in ("begin", "end"))
    pattern, text = re.compile(rf"{begin}\n.*?{end}", re.DOTALL), page.read_text(encoding="utf-8")
    if len(pattern.findall(text)) != 1:
        raise UserError(f"{page.name}: has no place for the table; write {begin} and {end} on two lines")
    with replacing(page) as draft:
        draft.write_text(pattern.sub(lambda match: f"{begin}\n{block}\n{end}", text), encoding="utf-8")


def version() -> str:
    """The version of the project that is played against, as git names it, and the seed of what is drawn."""
    commit = git("rev-parse", "--short=8", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{PAGE.relative_to(ROOT)}")
    return f"version {commit or 'unknown'}{' with changes' if changed else ''}, seed {chosen['seed']}"


def git(*words: str) -> str:
    """What git says; nothing where there is none."""
    answer = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""
