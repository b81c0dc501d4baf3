"""GPUs: which ones work, one run at a time on each, and those that somebody else is at."""

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


def test_a_gpu_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho '0, GPU-aa, 80000, 81559'; echo '1, GPU-bb, 3000, 81559'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    gpus.check_free(["0"], 14)
    for name in ("1", "GPU-bb"):
        with pytest.raises(UserError, match=f"GPU {name} has 3 of 80 GB free, and a run takes about 14"):
            gpus.check_free(["0", name], 14)
    fake.unlink()
    gpus.check_free(["1"], 14)  # nobody can tell


def test_a_gpu_has_one_run_at_a_time(tmp_path: Path) -> None:
    runs = [toy_run(tmp_path / "runs", name, "together") for name in "ab"]  # each waits for the other
    assert run_all(runs, devices=["4", "7"], command=toy_command(tmp_path)) == {}
    assert sorted((run.folder / "device").read_text() for run in runs) == ["4", "7"]
    others = [toy_run(tmp_path / "runs", name) for name in "cd"]
    assert run_all(others, devices=["4"], command=toy_command(tmp_path)) == {}
    assert [(run.folder / "device").read_text() for run in others] == ["4", "4"]
