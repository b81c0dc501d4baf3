"""Tests of the fault campaign: a sample of its cases finds no fault, and each outcome is recognized."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coft.core.errors import UserError
from coft.core.schemas import Flag, Record, Text, maybe, numbers

from . import campaign
from .campaign import CATEGORIES, cases_of, run_cases
from .formats import Format
from .generate import DELETED, corruptions, draw, replaced, sample
from .mutations import DAMAGE, GARBAGE, LINES, MISSING
from .verdict import (
    ACCEPTED,
    CLEAN_ERROR,
    CORRECT,
    EITHER,
    FAULT,
    REFUSED,
    SECRET,
    Case,
    Expected,
    Outcome,
    WrongResult,
    check_exit,
    message_flaws,
    run_case,
)
from .workspace import Workspace

SLOW = ("processes", "environments")  # each case is a process or more
SAMPLE_SIZES = {"paths": 3, "non-finite": 4, "images": 6}  # default: 12


@pytest.fixture
def shared() -> Iterator[Path]:
    """Folder that another user can read, unlike tmp_path."""
    with tempfile.TemporaryDirectory(prefix="coft-faults-") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("category", [name for name in CATEGORIES if name not in SLOW])
def test_sample_of_campaign_finds_no_fault(category: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    cases = cases_of(category, quick=False)
    results = list(run_cases(cases[:: len(cases) // SAMPLE_SIZES.get(category, 12)], shared))
    assert len(results) > 1
    assert [(case.name, message) for case, outcome, message in results if outcome is FAULT] == []


def test_case_names_are_unique_and_quick_form_has_cases_of_each_category() -> None:
    for category in CATEGORIES:
        cases = cases_of(category, quick=False)
        assert max(Counter(case.name for case in cases).values()) == 1
        assert len(cases[:: campaign.QUICK.get(category, 1)]) > 1


def loop_forever(workspace: Workspace) -> None:
    while True:
        pass


def fail(workspace: Workspace, error: Exception) -> None:
    raise error


REFUSE = partial(fail, error=UserError("input: wrong; mend it"))
UNSAFE = Format("category", "file", lambda workspace: workspace.write("file"), lambda _, path: pd.read_pickle(path))


@pytest.mark.parametrize(
    ("run", "expected", "outcome", "message"),
    [
        (repr, EITHER, CORRECT, ""),
        (repr, REFUSED, FAULT, "accepted"),
        (REFUSE, EITHER, CLEAN_ERROR, "wrong; mend it"),
        (REFUSE, ACCEPTED, FAULT, "refuses"),
        (partial(fail, error=UserError("input: wrong")), EITHER, FAULT, "what to do"),
        (partial(fail, error=UserError("something: wrong; mend it")), EITHER, FAULT, "does not name the input"),
        (partial(fail, error=ZeroDivisionError()), EITHER, FAULT, "traceback"),
        (partial(fail, error=WrongResult("no")), EITHER, FAULT, "wrong result"),
        (loop_forever, EITHER, FAULT, "not finished"),
        (lambda workspace: print(SECRET), EITHER, FAULT, "secret"),
        (lambda workspace: Path(".table.1.tmp.csv").touch(), EITHER, FAULT, "remains"),
        (partial(UNSAFE.read_mutated, mutate=GARBAGE["malicious pickle"]), EITHER, FAULT, "code"),
    ],
)
def test_outcomes(run: Any, expected: Expected, outcome: Outcome, message: str, tmp_path: Path) -> None:
    case = Case("category", "case", run, expected, ("input",), seconds=0.2 if run is loop_forever else 5.0)
    judged, text = run_case(case, Workspace(tmp_path, tmp_path))
    assert judged is outcome and message in text


def test_a_line_with_control_characters_has_a_flaw() -> None:
    assert message_flaws("input: \x1b[31m; mend it") == ["is not one short printable line"]


@pytest.mark.parametrize(
    ("code", "errors", "exception"),
    [
        (0, "a warning\n", None),
        (2, "a warning\nerror: input: wrong; mend it\n", UserError),
        (2, "error: one\nerror: two\n", WrongResult),
        (2, "", WrongResult),
        (1, "error: input: wrong; mend it\n", WrongResult),
        (0, "Traceback (most recent call last):\n", WrongResult),
        (130, "\ninterrupted\n", KeyboardInterrupt),
    ],
)
def test_exit_codes(code: int, errors: str, exception: type[BaseException] | None) -> None:
    if exception is None:
        check_exit(code, errors)
    else:
        with pytest.raises(exception):
            check_exit(code, errors)


def test_mutations_change_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for mutate in {**GARBAGE, **DAMAGE, **MISSING}.values():
        path.write_bytes(b"valid content")
        mutate(path)
        assert not path.is_file() or path.read_bytes() != b"valid content"
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def test_generated_values_differ_from_valid_one_in_one_part() -> None:
    tree = {"format": "sorted/1", "numbers": [0.5, 1.0], "maybe": None}
    form = Record({"format": Text(20), "numbers": numbers(0, 1, 2)}, {"maybe": maybe(Flag())})
    examples = corruptions(form, tree, 200)
    assert form.matches(tree) and sum(not form.matches(value) for _, value in examples) > 50
    for key, value in examples:
        assert key == () or {name: part for name, part in value.items() if name != key[0]}.items() <= tree.items()
    assert replaced(tree, ("numbers", 1), 7)["numbers"] == [0.5, 7]
    assert "maybe" not in replaced(tree, ("maybe",), DELETED)
    assert tree["numbers"] == [0.5, 1.0]


def test_seed_determines_generated_values(monkeypatch: pytest.MonkeyPatch) -> None:
    first = draw(LINES, 30)
    assert first == draw(LINES, 30) and len(set(first)) == len(first) > 10
    monkeypatch.setitem(sample, "seed", 1)
    assert draw(LINES, 30) != first
