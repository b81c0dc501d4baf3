"""External files are opened only by `coft/core/untrusted.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNTRUSTED = ROOT / "coft" / "core" / "untrusted.py"
OPENERS = ("open", "read_text", "read_bytes", "read_csv", "fromfile", "memmap")
LOADERS = ("np.load", "numpy.load", "torch.load", "json.load", "yaml.load", "yaml.safe_load", "pickle.load")
WRITING = set("wxa")
EXEMPT = {  # number of calls that open no external file, by module
    "coft/core/exit_codes.py": 2,  # the null device
    "coft/core/files.py": 2,  # a draft, and its target
    "coft/core/lock.py": 1,  # a folder
    "coft/core/tensors.py": 1,  # a file opened by open_file
    "coft/core/world.py": 1,  # in memory
    "coft/images/index.py": 1,  # in memory
    "coft/images/reading.py": 1,  # in memory
    "coft/review/app.py": 1,  # scripts and styles of the project
    "coft/review/server.py": 1,  # a browser
    "scripts/bench/pool.py": 1,  # /proc
    "scripts/comparing/run.py": 1,  # a log that is written
    "scripts/getting/extract.py": 1,  # a file opened by open_file
    "scripts/picture.py": 1,  # a figure that it has drawn
    "coft/core/config_files.py": 1,  # a text
    "coft/core/yaml_text.py": 2,  # texts
}


def openings(tree: ast.Module) -> Iterator[str]:
    """Yield the calls that may open a file for reading."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        module, _, function = name.rpartition(".")
        arguments = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        constants = {item.value for item in arguments if isinstance(item, ast.Constant)}
        writes = any(isinstance(mode, str) and set(mode) & WRITING and len(mode) <= 3 for mode in constants)
        opens = name in LOADERS or (function in OPENERS and name not in ("read_text", "read_bytes"))
        if opens and module != "untrusted" and not (function == "open" and writes):
            yield f"{node.lineno}: {ast.unparse(node)[:80]}"


def test_only_untrusted_module_opens_files() -> None:
    folders = [ROOT / name for name in ("coft", "datasets", "scripts", "trainers")]
    modules = [ROOT / "train.py", *(path for folder in folders for path in folder.rglob("*.py"))]
    calls_of = {
        path.relative_to(ROOT).as_posix(): list(openings(ast.parse(path.read_text())))
        for path in modules
        if path != UNTRUSTED
    }
    wrong = {name: calls for name, calls in calls_of.items() if len(calls) != EXEMPT.get(name, 0)}
    assert wrong == {}, "read_text, read_json, read_table or open_file of coft.core.untrusted, instead"


def test_openings_are_detected() -> None:
    lines = [
        "open(p)",
        "p.read_text()",
        "open(p, 'w')",
        "read_text(p)",
        "pd.read_csv(p)",
        "p.open('rb')",
        "p.open('x')",
    ]
    assert [call.partition(":")[0] for call in openings(ast.parse("\n".join(lines)))] == list("1256")
