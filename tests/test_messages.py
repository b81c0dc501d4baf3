"""Each message for a user says what to do: those of the campaign are read as they come, these as they are written."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.faults.oracle import REMEDIES
from tests.faults.scene import ROOT

FOLDERS = ("coft", "trainers", "datasets", "scripts")


def messages(code: str) -> Iterator[tuple[int, str]]:
    """Line and text of each message in a file; what is filled in is {}, and who fills in the end says what to do."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError" and node.args:
            parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else [node.args[0]]
            if all(isinstance(part, (ast.Constant, ast.FormattedValue)) for part in parts):
                yield (
                    node.lineno,
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts),
                )


def helps(text: str) -> bool:
    return text.endswith("{}") or any(words in text for words in (*REMEDIES, ": use ", "; "))


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_message_says_what_to_do(folder: str) -> None:
    files = (ROOT / folder).rglob("*.py")
    found = [(path, *own) for path in files for own in messages(path.read_text(encoding="utf-8"))]
    assert len(found) > 10
    assert [(str(path.relative_to(ROOT)), line, text) for path, line, text in found if not helps(text)] == []


def test_a_message_that_says_nothing_of_the_kind_is_found() -> None:
    code = "raise UserError(f'file {path}: is wrong')\nraise UserError('x is wrong; give y')\nraise UserError(words)\n"
    assert [(line, helps(text)) for line, text in messages(code)] == [(1, False), (2, True)]
