"""Imports between packages: the method imports torch and lower layers only, the library never imports Dassl."""

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
    """Full names of all imports of a module."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            stem = ".".join(filter(None, (base, node.module)))
            yield from (f"{stem}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            raise AssertionError(f"{path}: imports by a computed name")


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("path", [*modules("coft/method"), *modules("coft/labelling")], ids=lambda path: path.stem)
def test_the_method_imports_only_torch_and_lower_layers(path: Path) -> None:
    for name in imported(path):
        allowed = within(name, "torch", "coft.method", "coft.labelling", "coft.core")
        assert allowed or name.split(".")[0] in sys.stdlib_module_names, name
        assert not within(name, *EXECUTION), name


def test_the_library_does_not_import_dassl_or_adapters() -> None:
    for path in modules("coft"):
        assert not [name for name in imported(path) if within(name, *FOREIGN)], path


ALLOWED = {
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


@pytest.mark.parametrize("package", list(ALLOWED))
def test_a_package_imports_only_lower_packages(package: str) -> None:
    for path in modules(f"coft/{package}"):
        packages = {name.split(".")[1] for name in imported(path) if name.startswith("coft.")}
        assert packages <= ALLOWED[package] | {package}, (path, packages)


def test_every_package_is_listed() -> None:
    packages = {path.name for path in (ROOT / "coft").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert packages == set(ALLOWED)


def test_tests_use_no_private_names() -> None:
    """Attributes and imports with a leading underscore, but for those of torch and Python."""
    exceptions = {"_extra_state", "_compiled_call_impl", "_to_copy", "_local_scalar_dense"}
    for path in [
        *modules("tests/coft/method"),
        *modules("tests/coft/rivals"),
        *(ROOT / "tests/coft").glob("test_*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                assert node.attr in exceptions, f"{path}:{node.lineno} {node.attr}"
            if isinstance(node, ast.ImportFrom):
                assert not any(alias.name.startswith("_") for alias in node.names), f"{path}:{node.lineno}"
