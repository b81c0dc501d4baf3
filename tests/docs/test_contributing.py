"""Rules of CONTRIBUTING.md that can be tested. Layers inside coft are tested in tests/coft/test_layers.py."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from coft.core.settings import keys
from coft.method.coft_plus import CoFTPlusSettings
from coft.method.coft_settings import CoFTSettings
from tests.docs.pages import ROOT


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level packages that a file imports from outside its own package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]


def test_datasets_do_not_import_higher_layers() -> None:
    for path in (ROOT / "datasets").rglob("*.py"):
        assert not set(imported(path)) & {"trainers", "scripts", "train", "tests"}, path


@pytest.mark.parametrize(("settings", "most"), [(CoFTSettings, 16), (CoFTPlusSettings, 20)])
def test_number_of_keys_is_limited(settings: type, most: int) -> None:
    assert len(keys(settings)) <= most
