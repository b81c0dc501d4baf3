"""Who may import whom: the method knows torch and itself, the library knows nothing of Dassl."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = ("dassl", "yacs", "trainers", "datasets", "scripts", "tests", "train")


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


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
def test_the_method_imports_torch_and_what_is_below_it(path: Path) -> None:
    for name in imported(path):
        ours = within(name, "torch", "coft.method", "coft.labelling", "coft.core")
        assert ours or name.split(".")[0] in sys.stdlib_module_names, name


def test_the_library_imports_nothing_of_dassl_or_its_adapters() -> None:
    for path in modules("coft"):
        assert not [name for name in imported(path) if within(name, *FOREIGN)], path


BELOW = {
    "core": set(),
    "images": {"core", "method"},
    "backbones": {"core", "images", "method"},
    "labelling": {"core", "method"},
    "method": {"core", "labelling"},
    "rivals": {"core", "backbones", "labelling", "method"},
    "inference": {"core", "images", "backbones", "labelling", "method"},
    "report": {"core", "images", "labelling"},
    "engine": {"core", "images", "backbones", "labelling", "method", "report", "inference"},
    "review": {"core", "backbones", "engine", "inference", "report"},
    "cli": {"api", "core", "engine", "inference", "report", "review"},
}


@pytest.mark.parametrize("package", list(BELOW))
def test_imports_go_down(package: str) -> None:
    for path in modules(f"coft/{package}"):
        own = {name.split(".")[1] for name in imported(path) if name.startswith("coft.")}
        assert own <= BELOW[package] | {package}, (path, own)


def test_every_package_has_its_place() -> None:
    packages = {path.name for path in (ROOT / "coft").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert packages == set(BELOW)


def test_relative_and_absolute_imports_are_both_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "coft" / "method" / "new.py"
    path.parent.mkdir(parents=True)
    lines = ["import yacs.config", "from ..core import errors", "from . import peer, pair", "from .pair import Pair"]
    lines += ["from ...trainers import coft", "def f():", "    from dassl.engine import TrainerX"]
    path.write_text("\n".join(lines))
    expected = ["yacs.config", "coft.core.errors", "coft.method.peer", "coft.method.pair", "coft.method.pair.Pair"]
    assert list(imported(path)) == [*expected, "trainers.coft", "dassl.engine.TrainerX"]
    path.write_text("import importlib\nimportlib.import_module('dassl')\n")
    with pytest.raises(AssertionError, match="no reader sees"):
        list(imported(path))


def test_trainers_inherit_at_most_three_levels_above_dassl() -> None:
    import trainers as _  # noqa: F401 - registers all
    from dassl.engine import TrainerX

    def levels(kind: type) -> list[int]:
        return [len([c for c in sub.__mro__ if c.__module__.split(".")[0] == "trainers"])
                for sub in everything_below(kind) if sub.__module__.split(".")[0] == "trainers"]  # fmt: skip

    found = levels(TrainerX)
    assert len(found) >= 12 and max(found) <= 3


def everything_below(kind: type) -> Iterator[type]:
    for sub in kind.__subclasses__():
        yield sub
        yield from everything_below(sub)


def test_there_is_one_type_of_pseudo_labels() -> None:
    """From the seeds to the loss: whatever has a label for images in the method or a rival is it."""
    found = []
    for path in [*modules("coft/labelling"), *modules("coft/method"), *modules("coft/rivals")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields = {
                    n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
                }
                found += [node.name] if fields & {"label", "labels"} else []
    assert sorted(found) == ["Predictions", "PseudoLabels"]


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
