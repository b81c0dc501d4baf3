from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.comparing import progress as module
from scripts.comparing.methods import Method
from scripts.comparing.plan import Run
from scripts.comparing.progress import UNKNOWN, Progress
from scripts.comparing.runner import Job


def run(trainer: str, dataset: str, seed: int = 1) -> Run:
    return Run(Method(trainer, trainer), dataset, "embedded", seed, (), Path(), {})


def test_a_run_is_expected_to_take_what_the_most_alike_took() -> None:
    known = {run("CoFT", "digits"): 100.0, run("CoFT", "digits", 2): 200.0, run("CoFT", "icons"): 600.0}
    known[run("UPL", "digits")] = 20.0
    alike, same_trainer, other = run("CoFT", "digits", 3), run("CoFT", "emoji"), run("CoOp", "emoji")
    with Progress([alike, same_trainer, other], known, jobs=2) as progress:
        assert progress.expected == {alike: 150.0, same_trainer: 300.0, other: 230.0}
        assert progress.remaining() == pytest.approx((150 + 300 + 230) / 2)
        progress.finished(alike, 500.0, "500 s")
        assert progress.expected[same_trainer] == pytest.approx((100 + 200 + 600 + 500) / 4)
    with Progress([other], {}) as progress:
        assert progress.expected[other] == UNKNOWN


def test_a_failed_run_does_not_count_for_the_time() -> None:
    bad, next_one = run("CoFT", "digits"), run("CoFT", "digits", 2)
    with Progress([bad, next_one], {}) as progress:
        progress.finished(bad, None, "failed")
        assert progress.expected[next_one] == UNKNOWN


def test_the_bar_counts_shares_of_runs_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bar:
        total = n = 0.0

        def __init__(self, **_: Any) -> None: ...
        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

        write = staticmethod(lambda *_, **__: None)
        format_interval = staticmethod(str)

    monkeypatch.setattr(module, "tqdm", Bar)
    first, second = run("CoFT", "digits"), run("CoFT", "digits", 2)
    progress = Progress([first, second], {run("CoFT", "digits", 3): 100.0})
    progress.show({first: 0.25})
    assert (progress.bar.n, progress.bar.total) == (25.0, 200.0)
    progress.finished(first, 100.0, "")
    progress.show({second: 0.5})
    assert (progress.bar.n, progress.bar.total) == (150.0, 200.0)


def test_the_share_that_is_done_is_read_from_the_log(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_text("epoch [9/9] batch [9/9] of an earlier start\n")
    said = "print('epoch [3/4] batch [1/2] loss 1'); print('epoch [3/4] batch [2/2] loss 1')"
    with path.open("a") as log:
        job = Job(run("CoFT", "digits"), log, [sys.executable, "-c", said], {}, [])
    assert job.share_done() in (0.0, 0.75)
    job.process.wait()
    assert job.share_done() == 0.75
    path.unlink()
    assert job.share_done() == 0.75
