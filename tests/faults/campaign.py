"""All categories of cases, and the loop that runs them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from . import (
    annotation_files,
    backbones,
    commands,
    formats,
    paths,
    processes,
    run_files,
    sequences,
    settings,
)
from .formats import Format
from .verdict import SECRET, Case, Outcome, run_case
from .workspace import Workspace

CATEGORIES: dict[str, tuple[Callable[[], Iterable[Case | Format]], ...]] = {  # and the sources of their cases
    "settings": (settings.invalid_values,),
    "command-line": (commands.command_lines, formats.configs),
    "images": (formats.images, paths.conditions),
    "classes": (commands.class_names, formats.classes),
    "checkpoints": (backbones.backbones, backbones.open_clip_configs, run_files.checkpoints),
    "splits": (formats.splits, annotation_files.annotation_files),
    "folders": (run_files.run_files, paths.conditions),
    "paths": (paths.not_folders, paths.conditions),
    "archives": (formats.archives,),
    "endpoint": (commands.endpoint_replies,),
    "non-finite": (backbones.backbones, run_files.checkpoints, run_files.run_files),
    "sequences": (sequences.sequences,),
    "processes": (processes.interruptions,),
    "environments": (processes.environments,),
}
QUICK = {  # categories of which the quick form runs one case in this many
    **{"settings": 7, "checkpoints": 3, "folders": 5, "paths": 3, "non-finite": 2},
    **{"sequences": 4, "processes": 13, "environments": 14},
}


def cases_of(category: str, quick: bool) -> list[Case]:
    """Return the cases of a category."""
    items = [item for source in CATEGORIES[category] for item in source() if item.category == category]
    cases = [case for item in items for case in (item.cases() if isinstance(item, Format) else [item])]
    return cases[:: QUICK.get(category, 1)] if quick else cases


def run_cases(cases: Iterable[Case], shared: Path) -> Iterator[tuple[Case, Outcome, str]]:
    """Run cases, each in its own folder inside the shared one. Yields each with its outcome and message."""
    os.environ["OPENAI_API_KEY"] = SECRET
    for case in cases:
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=shared))
        try:
            yield case, *run_case(case, Workspace(shared, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
