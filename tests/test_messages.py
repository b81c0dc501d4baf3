"""Every error message in the source code says what to do. The fault campaign checks the messages that appear."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.faults.verdict import REMEDIES
from tests.faults.workspace import ROOT

FOLDERS = ("coft", "trainers", "datasets", "scripts")


def messages(code: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each message; placeholders are {}."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError" and node.args:
            parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else [node.args[0]]
            if all(isinstance(part, (ast.Constant, ast.FormattedValue)) for part in parts):
                yield (
                    node.lineno,
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts),
                )


def has_remedy(text: str) -> bool:
    return text.endswith("{}") or any(words in text for words in (*REMEDIES, ": use ", "; "))


@pytest.mark.parametrize("folder", FOLDERS)
def test_messages_say_what_to_do(folder: str) -> None:
    files = (ROOT / folder).rglob("*.py")
    all_messages = [(path, *message) for path in files for message in messages(path.read_text(encoding="utf-8"))]
    assert len(all_messages) > 10
    assert [
        (str(path.relative_to(ROOT)), line, text) for path, line, text in all_messages if not has_remedy(text)
    ] == []


def test_message_without_remedy_is_detected() -> None:
    code = "raise UserError(f'file {path}: is wrong')\nraise UserError('x is wrong; give y')\nraise UserError(words)\n"
    assert [(line, has_remedy(text)) for line, text in messages(code)] == [(1, False), (2, True)]
