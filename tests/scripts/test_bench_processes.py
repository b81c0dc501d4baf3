"""Benchmarks of many images and of several processes."""

from __future__ import annotations

import pytest

from coft.core.paths import HOME
from compat.dassl.tests.forks import run_forked
from scripts.bench.pool import measure_each
from scripts.bench.pool import table as pool_table
from scripts.bench.scaling import table as scaling_table
from tests.markdown import table_rows


def test_decisions_are_timed_on_two_processes() -> None:
    (numbers,) = measure_each([120], size=2, classes=5, width=16)
    assert all(seconds >= 0 for seconds in numbers.values())
    steps = {"seeds", "encoding", "later labels", "negative vectors fitted"}
    assert steps < numbers.keys() and sum(numbers[step] for step in steps) > 0
    assert "120 images" in pool_table({120: numbers})


@pytest.mark.parametrize(("bench", "flag"), [("pool", "--images"), ("scaling", "--processes")])
def test_mistakes_are_one_line(bench: str, flag: str) -> None:
    done = run_forked(["-m", f"scripts.bench.{bench}", flag, "few"], HOME)
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"error: argument {flag}: ") and "'few'" in line


def test_efficiency_is_relative_to_one_process() -> None:
    text = scaling_table({1: [[32, 1.0]] * 3, 2: [[32, 0.625]] * 3})
    assert ["step, one batch", "2", "32", "0.625", "51.2", "0.80"] in table_rows(text)
