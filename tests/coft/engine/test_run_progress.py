"""How far a run is, and how long it still takes, against what a clock says."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest

from coft.core.progress import bar, user_log
from coft.engine.run_progress import PHASE2_STEP_RATIO, Epoch, RunProgress, shown, time_left

EPOCHS = [Epoch(1, 4), Epoch(1, 4), Epoch(2, 5), Epoch(2, 5)]


class Clock:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def play(
    course: RunProgress, clock: Clock, light: float = 1.0, full: float = 4.0, labelling: float = 10.0
) -> list[float]:
    """Go through a course; returns what it said to be left less what was, at each step."""
    total = sum(e.steps * (light if e.phase == 1 else full) + (labelling if e.phase == 2 else 0.0) for e in EPOCHS)
    off, end = [], clock.time + total
    for number, epoch in enumerate(EPOCHS):
        course.begin(number)
        clock.time += labelling if epoch.phase == 2 else 0.0
        for _ in range(epoch.steps):
            clock.time += light if epoch.phase == 1 else full
            course.step()
            left = course.left()
            off.append(float("nan") if left is None else left - (end - clock.time))
    assert clock.time == end
    return off


def test_what_is_left_is_known_once_a_phase_has_had_an_epoch() -> None:
    clock = Clock()
    course = RunProgress(lambda: EPOCHS, clock)
    assert course.share() == 0.0
    off = play(course, clock)
    guess = PHASE2_STEP_RATIO * 10 - (10 * 4 + 2 * 10)  # of Phase II, before it begins
    assert off[:8] == pytest.approx([float("nan"), *[guess] * 7], nan_ok=True)
    assert off[9:] == pytest.approx([0.0] * 9)  # labelling is not taken for a part of each step
    assert course.share() == 1.0


def test_the_share_never_falls() -> None:
    clock, shares = Clock(), list[float]()
    course = RunProgress(lambda: EPOCHS, clock)
    course.changed = lambda: shares.append(course.share())
    play(course, clock, full=40.0)  # much longer than was expected
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_a_run_that_goes_on_does_not_begin_at_nothing() -> None:
    clock = Clock()
    course = RunProgress(lambda: [Epoch(1, 4)] * 4, clock)
    course.begin(2)
    for _ in range(3):
        clock.time += 1.0
        course.step()
    assert course.left() == pytest.approx(5.0) and course.share() == pytest.approx(11 / 16)


def test_without_a_terminal_there_is_a_line_for_each_tenth(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    course = RunProgress(lambda: EPOCHS, clock)
    with caplog.at_level(logging.INFO, user_log.name), shown(course, "CoFT"):
        play(course, clock)
    parts = [int(re.search(r"(\d+) %", line)[1]) // 10 for line in caplog.messages]  # type: ignore[index]
    assert parts == sorted(set(parts)) and parts[-1] == 10 and 4 <= len(parts) <= 10
    assert caplog.messages[0].startswith("CoFT, Phase I, epoch 1 of 2: ")


def test_epochs_are_counted_within_their_phase() -> None:
    course, places = RunProgress(lambda: EPOCHS, Clock()), []
    for number in range(len(EPOCHS)):
        course.begin(number)
        places.append(course.place())
    assert places == [f"Phase {phase}, epoch {number} of 2" for phase in ("I", "II") for number in (1, 2)]
    assert RunProgress(lambda: EPOCHS[:2]).place() == "epoch 1 of 2"


def test_a_terminal_has_one_bar_and_none_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr(sys, "stderr", terminal)
    course = RunProgress(lambda: EPOCHS, clock)
    with shown(course, "CoFT"):
        list(bar(range(3), "a part"))
        play(course, clock)
    assert "CoFT" in terminal.getvalue() and "a part" not in terminal.getvalue()
    list(bar(range(3), "a part"))
    assert "a part" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (7.4, ", 7 s left"), (119, ", 119 s left"), (130, ", 2 min left"), (7200, ", 2.0 h left")],
)
def test_time_in_words(seconds: float | None, words: str) -> None:
    assert time_left(seconds) == words
