"""GPUs: which ones are used, with one run at a time on each."""

from __future__ import annotations

from pathlib import Path

import pytest

from coft.core.errors import UserError
from scripts.comparing import gpus
from scripts.comparing.run import run_all

from .toy_runs import toy_command, toy_run


def test_gpus_are_those_that_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.devices([], every=True) == [] and gpus.devices([0, 1]) == ["0", "1"]  # without any
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert gpus.devices([], every=True) == ["0", "1"] and gpus.devices([]) == [] and gpus.devices([1]) == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,3")
    assert gpus.devices([1, 0]) == ["3", "6"]
    with pytest.raises(UserError, match=r"--gpus 2: expected numbers from 0 to 1"):
        gpus.devices([2])


def test_a_gpu_has_one_run_at_a_time(tmp_path: Path) -> None:
    runs = [toy_run(tmp_path / "runs", name, "together") for name in "ab"]  # each waits for the other
    assert run_all(runs, devices=["4", "7"], command=toy_command(tmp_path)) == {}
    assert sorted((run.folder / "device").read_text() for run in runs) == ["4", "7"]
    others = [toy_run(tmp_path / "runs", name) for name in "cd"]
    assert run_all(others, devices=["4"], command=toy_command(tmp_path)) == {}
    assert [(run.folder / "device").read_text() for run in others] == ["4", "4"]
