"""Tests of the fault campaign: a sample of its cases finds no fault, and each outcome is recognized."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from coft.core.errors import UserError
from coft.core.schemas import Flag, Record, Text, maybe, numbers
from coft.core.settings import Key

from . import campaign, settings
from .campaign import CATEGORIES, cases_of, count_faults, read_stored, run_cases, store, table, write
from .formats import Format
from .generate import DELETED, corruptions, draw, replaced, sample
from .mutations import DAMAGE, GARBAGE, LINES, MISSING
from .verdict import (
    ACCEPTED,
    EITHER,
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
SAMPLE_SIZES = {"bounds": 2, "paths": 3, "non-finite": 2, "folders": 3, "checkpoints": 3, "images": 6}  # default: 12


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
    assert [(result.case.name, result.outcome.value, result.message) for result in results if result.is_fault] == []


def test_case_names_are_unique_and_quick_form_has_cases_of_each_category() -> None:
    for category in CATEGORIES:
        cases = cases_of(category, quick=False)
        assert max(Counter(case.name for case in cases).values()) == 1
        assert len(cases[:: campaign.QUICK.get(category, 1)]) > 1


def outcome(run: object, tmp_path: Path, expected: Expected = EITHER, seconds: float = 5.0) -> Outcome:
    case = Case("category", "case", run, expected, ("input",), seconds)  # type: ignore[arg-type]
    return run_case(case, Workspace(tmp_path, tmp_path)).outcome


def fail(workspace: Workspace, error: Exception) -> None:
    raise error


def test_outcomes(tmp_path: Path) -> None:
    def loop_forever(workspace: Workspace) -> None:
        while True:
            pass

    refuse = partial(fail, error=UserError("input: wrong; mend it"))
    assert outcome(repr, tmp_path) is Outcome.CORRECT
    assert outcome(repr, tmp_path, REFUSED) is Outcome.SILENT
    assert outcome(refuse, tmp_path) is Outcome.CLEAN_ERROR
    assert outcome(refuse, tmp_path, ACCEPTED) is Outcome.WRONGLY_REFUSED
    assert outcome(partial(fail, error=UserError("input: wrong")), tmp_path) is Outcome.POOR_MESSAGE
    assert outcome(partial(fail, error=ZeroDivisionError()), tmp_path) is Outcome.TRACEBACK
    assert outcome(partial(fail, error=WrongResult("no")), tmp_path) is Outcome.SILENT
    assert outcome(loop_forever, tmp_path, seconds=0.2) is Outcome.HANG
    assert outcome(lambda workspace: print(SECRET), tmp_path) is Outcome.SECRET_PRINTED
    assert outcome(lambda workspace: Path(".table.1.tmp.csv").touch(), tmp_path) is Outcome.HALF_WRITTEN


def test_executed_code_of_input_is_a_fault(tmp_path: Path) -> None:
    unsafe = Format("category", "file", lambda workspace: workspace.write("file"), lambda _, path: pd.read_pickle(path))
    run = partial(unsafe.read_mutated, mutate=GARBAGE["malicious pickle"])
    assert outcome(run, tmp_path) is Outcome.SILENT


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("input: wrong; mend it", 0),
        ("something: wrong; mend it", 1),  # does not name the input
        ("input: wrong", 1),  # no remedy
        ("input: \x1b[31m; mend it", 1),  # control characters
    ],
)
def test_flaws_of_messages(line: str, count: int) -> None:
    assert len(message_flaws(line, ("input",))) == count


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


def test_bounds_are_accepted_values() -> None:
    key = Key("OPTIM.X", float, False, 0.5, at_least=0.0, at_most=3.0)
    assert settings.bounds(key) == [0.0, 1e-30, 1.0, 3.0]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Results of a category with a clean error and two faults."""
    monkeypatch.setattr(campaign, "version", lambda: "version 1")
    outcomes = [Outcome.CLEAN_ERROR.value, Outcome.HANG.value, Outcome.POOR_MESSAGE.value]
    rows = {"category": "images", "case": list("abc"), "outcome": outcomes, "message": "", "seconds": 20.4}
    return pd.DataFrame(rows).assign(version="version 1")


def test_write_replaces_table_of_page(results: pd.DataFrame, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin: campaign -->\nold\n<!-- end: campaign -->\nafter\n")
    write(results, page)
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines and count_faults(results) == 2
    assert "3 cases in 61 seconds, at version 1." in page.read_text() and table(results) in page.read_text()
    assert [int(cell) for cell in lines[-4].split("|")[2:-1]] == [3, 1, 1, 1]  # clean errors, hangs, poor messages
    page.write_text("no markers")
    with pytest.raises(UserError, match=r"page\.md"):
        write(results, page)


def test_stored_results_are_valid_for_one_version(
    results: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(results, tmp_path)
    stored = read_stored("images", tmp_path)
    assert stored is not None and stored.equals(results) and read_stored("classes", tmp_path) is None
    monkeypatch.setattr(campaign, "version", lambda: "version 2")
    assert read_stored("images", tmp_path) is None
