"""A share of the campaign finds no fault, and each outcome is told from the others."""

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

from . import campaign, keys
from .campaign import CATEGORIES, cases_of, faults, keep, kept, play_all, table, write
from .drawing import GONE, changed, chosen, drawn, spoiled
from .formats import Format
from .fuzzing import begin_with, feed
from .mutations import DAMAGE, GARBAGE, LINES, NOT_THERE
from .oracle import EITHER, FINE, REFUSED, SECRET, Case, Found, Right, Wrong, check_outcome, flaws_of, play
from .scene import Scene

PROCESSES = ("processes", "environments")  # of which each case takes one or more
COUNTS = {"values": 2, "places": 3, "numbers": 2, "folders": 3, "checkpoints": 3, "images": 6}  # cases; else 12


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that another user may look into, as tmp_path is none."""
    with tempfile.TemporaryDirectory(prefix="coft-faults-") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("category", [name for name in CATEGORIES if name not in PROCESSES])
def test_a_share_of_the_campaign_finds_no_fault(category: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    cases = cases_of(category, quick=False)
    results = list(play_all(cases[:: len(cases) // COUNTS.get(category, 12)], shared))
    assert len(results) > 1
    assert [(result.case.name, result.found.value, result.line) for result in results if result.fault] == []


def test_all_cases_differ_and_the_quick_form_has_some_of_each_category() -> None:
    for category in CATEGORIES:
        names = Counter(case.name for case in cases_of(category, quick=False))
        assert max(names.values()) == 1 and 1 < len(cases_of(category, quick=True)) <= len(names)


def outcome(run: object, tmp_path: Path, right: Right = EITHER, seconds: float = 5.0) -> Found:
    case = Case("category", "case", run, right, ("input",), seconds)  # type: ignore[arg-type]
    return play(case, Scene(tmp_path, tmp_path)).found


def failing(scene: Scene, error: Exception) -> None:
    raise error


def test_each_outcome_is_told_from_the_others(tmp_path: Path) -> None:
    def forever(scene: Scene) -> None:
        while True:
            pass

    clean = partial(failing, error=UserError("input: wrong; mend it"))
    assert outcome(repr, tmp_path) is Found.CORRECT
    assert outcome(repr, tmp_path, REFUSED) is Found.SILENT
    assert outcome(clean, tmp_path) is Found.CLEAN
    assert outcome(clean, tmp_path, FINE) is Found.REFUSED
    assert outcome(partial(failing, error=UserError("input: wrong")), tmp_path) is Found.POOR
    assert outcome(partial(failing, error=ZeroDivisionError()), tmp_path) is Found.TRACEBACK
    assert outcome(partial(failing, error=Wrong("no")), tmp_path) is Found.SILENT
    assert outcome(forever, tmp_path, seconds=0.2) is Found.HANG
    assert outcome(lambda scene: print(SECRET), tmp_path) is Found.SECRET
    assert outcome(lambda scene: Path(".table.1.tmp.csv").touch(), tmp_path) is Found.HALF


def test_a_program_within_an_input_that_runs_is_seen(tmp_path: Path) -> None:
    careless = Format(
        "category", "file", lambda scene: scene.file("file", b""), lambda scene, path: pd.read_pickle(path)
    )
    assert outcome(partial(careless.feed, mutate=GARBAGE["a program"]), tmp_path) is Found.SILENT


@pytest.mark.parametrize(
    ("line", "flaws"),
    [
        ("input: wrong; mend it", []),
        ("something: wrong; mend it", ["does not name the input"]),
        ("input: wrong", ["does not say what to do"]),
        ("input: \x1b[31m; mend it", ["is more than a line, or not escaped"]),
    ],
)
def test_a_message_that_helps_is_told_from_one_that_does_not(line: str, flaws: list[str]) -> None:
    assert flaws_of(line, ("input",)) == flaws


@pytest.mark.parametrize(
    ("code", "errors", "raised"),
    [
        (0, "a warning\n", None),
        (2, "a warning\nerror: input: wrong; mend it\n", UserError),
        (2, "error: one\nerror: two\n", Wrong),
        (2, "", Wrong),
        (1, "error: input: wrong; mend it\n", Wrong),
        (0, "Traceback (most recent call last):\n", Wrong),
    ],
)
def test_a_command_is_judged_by_exit_code_and_line(code: int, errors: str, raised: type[Exception] | None) -> None:
    if raised is None:
        check_outcome(code, errors)
    else:
        with pytest.raises(raised):
            check_outcome(code, errors)


def test_mutations_change_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for mutate in (GARBAGE | DAMAGE | NOT_THERE).values():
        path.write_bytes(b"as it should be")
        mutate(path)
        assert not path.is_file() or path.read_bytes() != b"as it should be"
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def test_what_is_drawn_differs_from_a_sound_value_in_one_place_and_most_is_none_of_its_form() -> None:
    tree = {"format": "sorted/1", "numbers": [0.5, 1.0], "maybe": None}
    form = Record({"format": Text(20), "numbers": numbers(0, 1, 2)}, {"maybe": maybe(Flag())})
    cases = drawn(spoiled(form, tree), 200)
    assert form.matches(tree) and sum(not form.matches(value) for _, value in cases) > 50
    for place, value in cases:
        assert place == () or {key: part for key, part in value.items() if key != place[0]}.items() <= tree.items()
    assert changed(tree, ("numbers", 1), 7)["numbers"] == [0.5, 7] and "maybe" not in changed(tree, ("maybe",), GONE)
    assert tree["numbers"] == [0.5, 1.0]


def test_texts_are_drawn_once_and_the_same_ones_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = drawn(LINES, 30)
    assert first == drawn(LINES, 30) and len(set(first)) == len(first) > 10
    monkeypatch.setitem(chosen, "seed", 1)
    assert drawn(LINES, 30) != first


def test_ends_are_within_what_a_setting_takes() -> None:
    key = Key("OPTIM.X", float, False, 0.5, at_least=0.0, at_most=3.0)
    assert keys.ends(key) == [0.0, 1e-30, 1.0, 3.0]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Three cases of a category: a clean error, a hang, and an error whose message does not help."""
    monkeypatch.setattr(campaign, "version", lambda: "version 1")
    found = [Found.CLEAN.value, Found.HANG.value, Found.POOR.value]
    return pd.DataFrame({"category": "own", "case": list("abc"), "found": found, "line": "", "seconds": 20.4}).assign(
        version="version 1"
    )


def test_the_table_is_written_to_the_page(results: pd.DataFrame, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin: campaign -->\nold\n<!-- end: campaign -->\nafter\n")
    write(results, page)
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines and faults(results) == 2
    assert "3 cases in 61 seconds, at version 1." in page.read_text() and table(results) in page.read_text()
    assert [int(cell) for cell in lines[-4].split("|")[2:-1]] == [3, 1, 1, 1]  # clean errors, hangs, poor messages
    page.write_text("no markers")
    with pytest.raises(UserError, match="has no place for the table"):
        write(results, page)


def test_a_campaign_goes_on_after_what_this_version_has_done(
    results: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(results, tmp_path)
    again = kept("own", tmp_path)
    assert again is not None and again.equals(results) and kept("other", tmp_path) is None
    monkeypatch.setattr(campaign, "version", lambda: "version 2")
    assert kept("own", tmp_path) is None


def test_a_fuzzer_begins_with_the_campaigns_files_and_sees_what_a_careless_reader_does(tmp_path: Path) -> None:
    """Of the fuzzer all but atheris, which chooses the bytes."""

    def careless(scene: Scene, path: Path) -> None:
        if path.read_bytes() == b"odd":
            raise ZeroDivisionError

    kind = Format("category", "file", lambda scene: scene.file("file", b"sound"), careless, either=DAMAGE)
    scene = Scene(tmp_path, tmp_path / "place")
    (tmp_path / "corpus").mkdir()
    scene.place.mkdir()
    begin_with(kind, scene, tmp_path / "corpus")
    assert len(list((tmp_path / "corpus").iterdir())) == 1 + len(DAMAGE) and not list(scene.place.iterdir())
    assert feed(kind, b"sound", tmp_path, scene.place).found is Found.CORRECT
    assert feed(kind, b"odd", tmp_path, scene.place).found is Found.TRACEBACK and not list(scene.place.iterdir())
