"""Rules of CONTRIBUTING.md that can be checked."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from coft.core.settings import keys
from coft.method.coft_plus import CoFTPlusSettings
from coft.method.coft_settings import CoFTSettings
from dassl.engine import TRAINER_REGISTRY
from tests.docs.pages import ROOT

OURS = {"coft", "trainers", "datasets", "scripts", "train", "tests", "weights"}
DASSL = {"dassl", "yacs"}
LEVELS = 3


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, relative ones resolved."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            yield ".".join(part for part in (base, node.module or "") if part)


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [("coft", (OURS - {"coft"}) | DASSL), ("datasets", {"trainers", "scripts", "train", "tests"})],
)
def test_folders_import_what_they_may(folder: str, forbidden: set[str]) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & forbidden, path


@pytest.mark.parametrize(("settings", "most"), [(CoFTSettings, 20), (CoFTPlusSettings, 26)])
def test_keys_are_few(settings: type, most: int) -> None:
    assert len(keys(settings)) <= most


@pytest.mark.parametrize("name", ["CoFT", "CoFTPlus", "DeFT", "GRIP", "UPL", "CoOp", "SelfTraining", "ZeroshotCLIP2"])
def test_trainers_have_few_levels(name: str) -> None:
    ours = [cls for cls in TRAINER_REGISTRY.get(name).__mro__ if cls.__module__.split(".")[0] == "trainers"]
    assert len(ours) <= LEVELS
