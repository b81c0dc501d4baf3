"""Progress of a run and its remaining time."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest

from coft.core.progress import bar, user_log
from coft.engine.run_progress import PHASE2_STEP_RATIO, Epoch, RunProgress, show_progress, time_left

EPOCHS = [Epoch(1, 4), Epoch(1, 4), Epoch(2, 5), Epoch(2, 5)]


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def advance_through(
    progress: RunProgress, clock: Clock, light: float = 1.0, full: float = 4.0, labelling: float = 10.0
) -> list[float]:
    """Run all epochs; returns the error of the estimated remaining time at each step."""
    total = sum(e.steps * (light if e.phase == 1 else full) + (labelling if e.phase == 2 else 0.0) for e in EPOCHS)
    errors, end = [], clock.time + total
    for number, epoch in enumerate(EPOCHS):
        progress.begin(number)
        clock.time += labelling if epoch.phase == 2 else 0.0
        for _ in range(epoch.steps):
            clock.time += light if epoch.phase == 1 else full
            progress.step()
            left = progress.seconds_left()
            errors.append(float("nan") if left is None else left - (end - clock.time))
    assert clock.time == end
    return errors


def test_the_remaining_time_is_exact_after_an_epoch_of_each_phase() -> None:
    clock = Clock()
    progress = RunProgress(lambda: EPOCHS, clock)
    assert progress.fraction_done() == 0.0
    errors = advance_through(progress, clock)
    guess = PHASE2_STEP_RATIO * 10 - (10 * 4 + 2 * 10)  # before Phase II begins
    assert errors[:8] == pytest.approx([float("nan"), *[guess] * 7], nan_ok=True)
    assert errors[9:] == pytest.approx([0.0] * 9)  # the time of labelling is kept apart from steps
    assert progress.fraction_done() == 1.0


def test_the_completed_share_never_decreases() -> None:
    clock, shares = Clock(), list[float]()
    progress = RunProgress(lambda: EPOCHS, clock)
    progress.changed = lambda: shares.append(progress.fraction_done())
    advance_through(progress, clock, full=40.0)  # much longer than expected
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_a_resumed_run_starts_at_its_share() -> None:
    clock = Clock()
    progress = RunProgress(lambda: [Epoch(1, 4)] * 4, clock)
    progress.begin(2)
    for _ in range(3):
        clock.time += 1.0
        progress.step()
    assert progress.seconds_left() == pytest.approx(5.0) and progress.fraction_done() == pytest.approx(11 / 16)


def test_without_a_terminal_each_tenth_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    progress = RunProgress(lambda: EPOCHS, clock)
    with caplog.at_level(logging.INFO, user_log.name), show_progress(progress, "CoFT"):
        advance_through(progress, clock)
    parts = [int(re.search(r"(\d+) %", line)[1]) // 10 for line in caplog.messages]  # type: ignore[index]
    assert parts == sorted(set(parts)) and parts[-1] == 10 and 4 <= len(parts) <= 10
    assert caplog.messages[0].startswith("CoFT, Phase I, epoch 1 of 2: ")


def test_epochs_are_counted_within_their_phase() -> None:
    progress, places = RunProgress(lambda: EPOCHS, Clock()), []
    for number in range(len(EPOCHS)):
        progress.begin(number)
        places.append(progress.phase_and_epoch())
    assert places == [f"Phase {phase}, epoch {number} of 2" for phase in ("I", "II") for number in (1, 2)]
    assert RunProgress(lambda: EPOCHS[:2]).phase_and_epoch() == "epoch 1 of 2"


def test_a_terminal_has_a_single_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = RunProgress(lambda: EPOCHS, clock)
    with show_progress(progress, "CoFT"):
        list(bar(range(3), "a part"))
        advance_through(progress, clock)
    assert "CoFT" in terminal.getvalue() and "a part" not in terminal.getvalue()
    list(bar(range(3), "a part"))
    assert "a part" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (7.4, ", 7 s left"), (119, ", 119 s left"), (130, ", 2 min left"), (7200, ", 2.0 h left")],
)
def test_time_left_is_rounded(seconds: float | None, words: str) -> None:
    assert time_left(seconds) == words
