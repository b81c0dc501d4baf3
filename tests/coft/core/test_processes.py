"""A fault in one process ends all with one line that names its rank; a slow rank is named."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.core import processes
from coft.core.errors import UserError
from coft.core.processes import check_same, main_process_first
from coft.core.world import SINGLE_PROCESS, World
from tests.worlds import in_world, start_processes, wait_for

SIZE = 3
FAULTY = 1  # rank


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(processes, "HEARTBEAT_TIMEOUT", 3.0)
    monkeypatch.setattr(processes, "PATIENCE", 1.0)


def refuse() -> None:
    raise UserError("image x.png cannot be read; remove it")


FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    "is killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), f"rank [02] of {SIZE} has lost another process"),
    "hangs": (lambda: os.kill(os.getpid(), signal.SIGSTOP), f"rank {FAULTY} of {SIZE} has sent no heartbeat"),
    "raises": (refuse, f"rank {FAULTY} of {SIZE}: image x.png cannot be read; remove it"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_all_processes_with_one_line(fault: str, tmp_path: Path) -> None:
    cause, line = FAULTS[fault]

    def work(world: World) -> None:
        for step in range(1000):
            if world.rank == FAULTY and step == 20:
                cause()
            world.sum(torch.ones(3))

    children = start_processes(SIZE, work, tmp_path / "world")
    codes, seconds = wait_for(children, limit=10)
    assert 0 not in codes and seconds < 12
    assert [code for rank, code in enumerate(codes) if rank != FAULTY] == [1, 1]
    lines = "".join((tmp_path / "world" / f"output-{rank}").read_text() for rank in range(SIZE)).splitlines()
    errors = [text for text in lines if text.startswith("error: ")]
    assert len(errors) == 1 and re.match(f"error: {line}", errors[0])


def test_settings_that_differ_between_ranks_are_refused(tmp_path: Path) -> None:
    def work(world: World) -> str:
        check_same(world, {"A": 1, "B": "x"}, "hint")
        with pytest.raises(UserError) as error:
            check_same(world, {"A": 1, "B": world.rank // 2}, "start all with the same command")
        return error.value.line

    lines = in_world(SIZE, work, tmp_path / "world")
    assert lines == ["B is 0 on rank 0 and 1 on rank 2; start all with the same command"] * SIZE


def test_the_main_process_runs_first(tmp_path: Path) -> None:
    def work(world: World) -> bool:
        with main_process_first(world):
            exists = (tmp_path / "file").exists()
            if world.is_main:
                time.sleep(0.5)
                (tmp_path / "file").touch()
        return exists

    assert in_world(SIZE, work, tmp_path / "world") == [False, True, True]


def test_a_single_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert processes.join() is SINGLE_PROCESS and processes.world() is SINGLE_PROCESS
    check_same(SINGLE_PROCESS, {"A": 1}, "")
    processes.fail(ValueError(), "no line", 1)  # returns
    processes.leave()
