"""Files from outside are opened in one place: `coft/core/untrusted.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOOR = ROOT / "coft" / "core" / "untrusted.py"
OPENERS = ("open", "read_text", "read_bytes", "read_csv", "fromfile", "memmap")
OF_PATHS = ("np.load", "numpy.load", "torch.load", "json.load", "yaml.load", "yaml.safe_load", "pickle.load")
WRITING = set("wxa")
OTHERS = {  # calls that open nothing from outside, by module
    "coft/core/exit_codes.py": 2,  # the null device
    "coft/core/files.py": 2,  # a draft of our own, and where it goes
    "coft/core/lock.py": 1,  # a folder
    "coft/core/tensors.py": 1,  # behind the door
    "coft/core/world.py": 1,  # in memory
    "coft/images/index.py": 1,  # in memory
    "coft/images/reading.py": 1,  # in memory
    "coft/review/app.py": 1,  # scripts and styles of the project
    "coft/review/serve.py": 1,  # a browser
    "scripts/bench/pool.py": 1,  # /proc
    "scripts/comparing/run.py": 1,  # a log that is written to
    "scripts/getting/extract.py": 1,  # behind the door
    "scripts/picture.py": 1,  # what it has just drawn
    "coft/core/config_files.py": 1,  # a text
    "coft/core/yaml_text.py": 2,  # texts
}


def openings(tree: ast.Module) -> Iterator[str]:
    """Calls that may open a file for reading."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        whose, _, last = name.rpartition(".")
        words = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        modes = {word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)}
        writes = any(set(mode) & WRITING and len(mode) <= 3 for mode in modes)
        by_library = name in OF_PATHS or (last in OPENERS and name not in ("read_text", "read_bytes"))
        if by_library and whose != "untrusted" and not (last == "open" and writes):
            yield f"{node.lineno}: {ast.unparse(node)[:80]}"


def test_files_are_opened_in_one_place() -> None:
    folders = [ROOT / name for name in ("coft", "datasets", "scripts", "trainers")]
    modules = [ROOT / "train.py", *(path for folder in folders for path in folder.rglob("*.py"))]
    counted = {
        path.relative_to(ROOT).as_posix(): list(openings(ast.parse(path.read_text())))
        for path in modules
        if path != DOOR
    }
    wrong = {name: calls for name, calls in counted.items() if len(calls) != OTHERS.get(name, 0)}
    assert wrong == {}, "read_text, read_json, read_table or open_file of coft.core.untrusted, instead"


def test_an_opening_is_seen() -> None:
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
