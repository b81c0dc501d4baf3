"""Imports: declared dependencies only, and nothing of the surrounding project."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[1]
DECLARED = {"torch", "torchvision", "numpy", "PIL", "yacs", "tabulate", "tqdm", "sklearn"}
EXTRAS = DECLARED | {"dassl", "clip", "pytest", "hypothesis"}
PACKAGES = ("toolboxes", "trials", "upstream")
HELPERS = ("forks", "stoppable", "toys")


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level packages that a file imports from outside its own package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [("src", DECLARED), *((package, EXTRAS) for package in PACKAGES), ("tests", EXTRAS.union(PACKAGES, HELPERS))],
)
def test_folders_import_allowed_packages(folder: str, allowed: set[str]) -> None:
    paths = [
        path for path in (HERE / folder).rglob("*.py") if "plugin" not in path.parts
    ]  # imports its own package `trainers`
    assert paths
    for path in paths:
        assert set(imported(path)) <= allowed | sys.stdlib_module_names, path
