"""Who may import whom: the method knows torch and itself, the library knows nothing of Dassl."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = ("dassl", "yacs", "trainers", "datasets", "scripts", "tests", "train")
EXECUTION = (
    *("torch.distributed", "torch.multiprocessing", "multiprocessing", "threading", "concurrent", "mmap", "tempfile"),
    *("coft.core.world", "coft.core.processes", "coft.core.parallel", "coft.core.files"),
)


def modules(package: str) -> list[Path]:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    return paths


def imported(path: Path) -> Iterator[str]:
    """Full names of what a module imports, wherever in it."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            stem = ".".join(filter(None, (base, node.module)))
            yield from (f"{stem}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            raise AssertionError(f"{path}: imports by a name that no reader sees")


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("path", [*modules("coft/method"), *modules("coft/labelling")], ids=lambda path: path.stem)
def test_the_method_imports_torch_and_what_is_below_it_and_nothing_that_executes(path: Path) -> None:
    for name in imported(path):
        ours = within(name, "torch", "coft.method", "coft.labelling", "coft.core")
        assert ours or name.split(".")[0] in sys.stdlib_module_names, name
        assert not within(name, *EXECUTION), name


def test_the_library_imports_nothing_of_dassl_or_its_adapters() -> None:
    for path in modules("coft"):
        assert not [name for name in imported(path) if within(name, *FOREIGN)], path


BELOW = {
    "core": set(),
    "images": {"core"},
    "backbones": {"core", "images"},
    "labelling": {"core"},
    "method": {"core", "labelling"},
    "rivals": {"core", "images", "backbones", "labelling", "method"},
    "inference": {"core", "images", "backbones", "labelling"},
    "report": {"core", "images", "labelling"},
    "engine": {"core", "images", "backbones", "labelling", "method", "rivals", "report", "inference"},
    "review": {"core", "backbones", "engine", "inference", "report"},
    "cli": {"api", "core", "engine", "inference", "report", "review"},
}


@pytest.mark.parametrize("package", list(BELOW))
def test_imports_go_down(package: str) -> None:
    for path in modules(f"coft/{package}"):
        rooms = {name.split(".")[1] for name in imported(path) if name.startswith("coft.")}
        assert rooms <= BELOW[package] | {package}, (path, rooms)


def test_every_package_has_its_place() -> None:
    packages = {path.name for path in (ROOT / "coft").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert packages == set(BELOW)


def test_no_test_of_the_library_reaches_into_private_names() -> None:
    """Attributes with a leading underscore of our modules; torch's and Python's own are another matter."""
    theirs = {"_extra_state", "_compiled_call_impl", "_to_copy", "_local_scalar_dense"}
    for path in [
        *modules("tests/coft/method"),
        *modules("tests/coft/rivals"),
        *(ROOT / "tests/coft").glob("test_*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                assert node.attr in theirs, f"{path}:{node.lineno} {node.attr}"
            if isinstance(node, ast.ImportFrom):
                assert not any(alias.name.startswith("_") for alias in node.names), f"{path}:{node.lineno}"
