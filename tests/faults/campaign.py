"""All categories of cases, and the results: stored between calls, and written to the page on reliability."""

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

from . import (
    annotation_files,
    backbones,
    benchmarks,
    commands,
    formats,
    paths,
    processes,
    run_files,
    sequences,
    settings,
)
from .formats import Format
from .generate import sample
from .verdict import GOOD, SECRET, Case, Outcome, Result, run_case
from .workspace import ROOT, Workspace

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: campaign -->", "<!-- end: campaign -->"
CATEGORIES: dict[str, tuple[Callable[[], Iterable[Case | Format]], ...]] = {  # and the sources of their cases
    "settings": (settings.invalid_values,),
    "command-line": (commands.command_lines, formats.configs),
    "images": (formats.images, paths.conditions),
    "classes": (commands.class_names, formats.classes),
    "checkpoints": (backbones.backbones, backbones.open_clip_configs, run_files.checkpoints),
    "splits": (formats.splits, annotation_files.annotation_files),
    "folders": (run_files.run_files, run_files.caches, paths.conditions),
    "paths": (paths.not_folders, paths.conditions),
    "archives": (formats.archives,),
    "benchmarks": (benchmarks.benchmarks,),
    "endpoint": (commands.endpoint_replies,),
    "non-finite": (backbones.backbones, run_files.checkpoints, run_files.run_files),
    "bounds": (settings.bound_values,),
    "sequences": (sequences.sequences,),
    "processes": (processes.interruptions,),
    "environments": (processes.environments,),
}
QUICK = {  # categories of which the quick form runs one case in this many
    **{"settings": 7, "checkpoints": 3, "folders": 5, "paths": 3, "non-finite": 2},
    **{"bounds": 23, "sequences": 4, "processes": 13, "environments": 14},
}


def cases_of(category: str, quick: bool) -> list[Case]:
    """Return the cases of a category."""
    items = [item for source in CATEGORIES[category] for item in source() if item.category == category]
    cases = [case for item in items for case in (item.cases() if isinstance(item, Format) else [item])]
    return cases[:: QUICK.get(category, 1)] if quick else cases


def run_cases(cases: Iterable[Case], shared: Path) -> Iterator[Result]:
    """Run cases, each in its own folder inside the shared one."""
    os.environ["OPENAI_API_KEY"] = SECRET
    for case in cases:
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=shared))
        try:
            yield run_case(case, Workspace(shared, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def run_category(category: str, quick: bool, shared: Path, show: Callable[[Result], object]) -> pd.DataFrame:
    """Run the cases of a category. Returns a row for each case."""
    rows, cases, started = [], cases_of(category, quick), time.monotonic()
    for result in tqdm(run_cases(cases, shared), category, len(cases), unit="case", disable=None, leave=False):
        show(result)
        row = {"category": category, "case": result.case.name, "outcome": result.outcome.value}
        rows.append(row | {"message": result.message})
    return pd.DataFrame(rows).assign(seconds=(time.monotonic() - started) / len(rows), version=version())


def store(results: pd.DataFrame, folder: Path) -> None:
    """Store the results of a category, so that a stopped campaign can resume after it."""
    write_json(folder / f"{results.category[0]}.json", results.to_dict("records"))


def read_stored(category: str, folder: Path) -> pd.DataFrame | None:
    """Read the stored results of a category at this version; None if there are none."""
    try:
        results = pd.DataFrame(json.loads((folder / f"{category}.json").read_text(encoding="utf-8")))
        return results if set(results.version) == {version()} else None
    except (OSError, ValueError, AttributeError):
        return None


def count_faults(results: pd.DataFrame) -> int:
    """Count the results that are faults of the project."""
    return int((~results.outcome.isin([outcome.value for outcome in GOOD])).sum())


def table(results: pd.DataFrame) -> str:
    """Return the number of cases by category and outcome, in Markdown."""
    counts = pd.crosstab(results.category, results.outcome, margins=True, margins_name="all")
    rows = [*results.category.unique(), "all"]
    columns = ["all", *(outcome.value for outcome in Outcome if outcome.value in counts)]
    counts = counts.reindex(index=rows, columns=columns).rename(columns={"all": "cases"})
    return counts.rename_axis("category").to_markdown(tablefmt="github")


def summary(results: pd.DataFrame) -> str:
    """Return the number of cases and their duration."""
    return f"{len(results):,} cases in {results.seconds.sum():,.0f} seconds"


def write(results: pd.DataFrame, page: Path = PAGE) -> None:
    """Write the results of all categories to a page, between its markers.

    Raises:
        UserError: If the page has no such markers.
    """
    line = f"`bash scripts/faults.sh`: {summary(results)}, at {results.version[0]}. Faults: {count_faults(results)}."
    pattern, text = re.compile(rf"{BEGIN}\n.*?{END}", re.DOTALL), page.read_text(encoding="utf-8")
    if len(pattern.findall(text)) != 1:
        raise UserError(f"{page.name}: has no place for the table; write {BEGIN} and {END} on two lines")
    with replacing(page) as draft:
        block = f"{BEGIN}\n{line}\n\n{table(results)}\n{END}"
        draft.write_text(pattern.sub(lambda match: block, text), encoding="utf-8")


def version() -> str:
    """Return the project's git version, and the seed of the generated cases."""
    commit = git("rev-parse", "--short=8", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{PAGE.relative_to(ROOT)}")
    return f"version {commit or 'unknown'}{' with changes' if changed else ''}, seed {sample['seed']}"


def git(*arguments: str) -> str:
    """Return the output of git; empty after an error."""
    answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""
