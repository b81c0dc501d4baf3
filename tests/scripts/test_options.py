"""Flags of the commands that compare."""

from __future__ import annotations

import pytest

from scripts.comparing.options import command_line


@pytest.mark.parametrize("words", [["--jobs", "2"], ["--jobs=2"], ["--gpus", "0,1"], ["--part=1/2"], ["--no-run"]])
def test_flags_that_change_no_table_are_left_out_of_its_command(words: list[str]) -> None:
    expected = "bash scripts/compare.sh digits --seeds 1 --trainers CoFT"
    assert command_line("compare", ["digits", *words, "--seeds", "1", "--trainers", "CoFT"]) == expected
