"""The quick campaign finds no fault, and each of its messages names the input and says what to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from coft.core.errors import UserError
from scripts.faults.case import Case, Found, Result, Right, Wrong
from scripts.faults.categories import CATEGORIES, cases_of
from scripts.faults.messages import faults_of
from scripts.faults.play import play, play_one
from scripts.faults.scene import SECRET, Scene
from scripts.faults.table import Row, counted, keep, kept, write
from scripts.faults.texts import DESCRIPTIONS, drawn

SLOW = ("images", "folders", "checkpoints")  # each a quarter of it, and a run or two
PROCESSES = ("processes", "environments")  # which the quick campaign leaves out
TAKEN = {
    "settings": 20,
    "values": 4,
    "classes": 3,
    "places": 3,
    "command-line": 3,
    **dict.fromkeys(SLOW, 12),
    "numbers": 4,
}  # one case in so many


@pytest.mark.slow
@pytest.mark.parametrize("category", [name for name in CATEGORIES if name not in PROCESSES])
def test_no_case_of_the_quick_campaign_is_a_fault(
    category: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    cases = cases_of([category], quick=True)[:: TAKEN.get(category, 1)]
    results = list(play(cases, tmp_path))
    assert len(results) == len(cases) > 5
    assert [(own.case.name, own.found.value, own.line) for own in results if own.fault] == []
    assert [(own.case.name, faults_of(own), own.line) for own in results if faults_of(own)] == []


def test_the_whole_campaign_has_at_least_fifteen_hundred_cases_that_differ() -> None:
    counts = Counter((case.category, case.name) for case in cases_of(list(CATEGORIES), quick=False))
    assert len(counts) >= 1500 and max(counts.values()) == 1
    assert {category for category, _ in counts} == set(CATEGORIES)


def outcome(run: object, tmp_path: Path, right: Right = Right.EITHER, seconds: float = 5.0) -> Result:
    return play_one(Case("own", "case", run, right, ("input",), seconds), Scene(tmp_path, tmp_path))  # type: ignore[arg-type]


def failing(scene: Scene, error: Exception) -> None:
    raise error


def test_each_outcome_is_told_from_the_others(tmp_path: Path) -> None:
    def fine(scene: Scene) -> None:
        """Do nothing."""

    def forever(scene: Scene) -> None:
        while True:
            pass

    def leaves(scene: Scene) -> None:
        (tmp_path / ".table.1.tmp.csv").touch()

    clean = partial(failing, error=UserError("input: wrong; mend it"))
    assert outcome(fine, tmp_path).found is Found.CORRECT
    assert outcome(fine, tmp_path, Right.REFUSED).found is Found.SILENT
    assert outcome(clean, tmp_path).found is Found.CLEAN
    assert outcome(clean, tmp_path, Right.FINE).found is Found.REFUSED
    assert outcome(partial(failing, error=ZeroDivisionError()), tmp_path).found is Found.TRACEBACK
    assert outcome(partial(failing, error=Wrong("no")), tmp_path).found is Found.SILENT
    assert outcome(forever, tmp_path, seconds=0.2).found is Found.HANG
    assert outcome(lambda scene: print(SECRET), tmp_path).found is Found.SECRET
    assert outcome(leaves, tmp_path).found is Found.HALF


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("input: wrong; mend it", []),
        ("something: wrong; mend it", ["does not name the input"]),
        ("input: wrong", ["does not say what to do"]),
        ("input: \x1b[31m; mend it", ["is more than a line, or not escaped"]),
    ],
)
def test_a_message_that_helps_is_told_from_one_that_does_not(line: str, wrong: list[str]) -> None:
    case = Case("own", "case", print, names=("input",))
    assert faults_of(Result(case, Found.CLEAN, line)) == wrong


def test_texts_are_drawn_once_and_the_same_ones_again() -> None:
    first = drawn(DESCRIPTIONS, 30)
    assert first == drawn(DESCRIPTIONS, 30) and len({repr(own) for own in first}) == len(first) > 10


@pytest.fixture
def row() -> Row:
    """Three cases of a category: a clean error, a hang, and an error whose message does not help."""
    case = Case("own", "case", print, names=("input",))
    results = [Result(case, Found.CLEAN, "input: wrong; mend it"), Result(case, Found.HANG), Result(case, Found.CLEAN)]
    return counted("own", results, 61.2)


def test_the_table_is_written_to_the_page(row: Row, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin: campaign -->\nold\n<!-- end: campaign -->\nafter\n")
    write([row, row], quick=False, page=page)
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
    assert "6 cases in 122 seconds, at version " in page.read_text()
    last, own = ([int(cell) for cell in line.split("|")[2:-1]] for line in (lines[-3], lines[-4]))
    assert own == [3, 0, 2, 0, 0, 0, 1, 0, 0, 1] and last == [2 * count for count in own] and row.faults == 2
    with pytest.raises(UserError, match="has no place for the table"):
        write([row], quick=True, page=page)


def test_a_campaign_goes_on_after_what_this_version_has_done(row: Row, tmp_path: Path) -> None:
    keep(row, tmp_path)
    assert kept("own", tmp_path) == row and kept("other", tmp_path) is None
    keep(replace(row, version="version 0"), tmp_path)
    assert kept("own", tmp_path) is None
