"""Flags of the commands that compare."""

from __future__ import annotations

import pytest

from coft.core.errors import UserError
from scripts.comparing.options import command_line, devices


@pytest.mark.parametrize("words", [["--jobs", "2"], ["--jobs=2"], ["--gpus", "0,1"], ["--part=1/2"], ["--no-run"]])
def test_flags_that_change_no_table_are_left_out_of_its_command(words: list[str]) -> None:
    expected = "bash scripts/compare.sh digits --seeds 1 --trainers CoFT"
    assert command_line("compare", ["digits", *words, "--seeds", "1", "--trainers", "CoFT"]) == expected


def test_gpus_are_those_that_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices([], every=True) == [] and devices([0, 1]) == ["0", "1"]  # without any
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices([], every=True) == ["0", "1"] and devices([]) == [] and devices([1]) == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,3")
    assert devices([1, 0]) == ["3", "6"]
    with pytest.raises(UserError, match=r"--gpus 2: expected numbers from 0 to 1"):
        devices([2])
