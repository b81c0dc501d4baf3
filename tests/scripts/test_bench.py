"""Benchmarks of steps, of many images, of several processes, and of predictions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from coft.core.paths import HOME
from compat.dassl.tests.forks import run_forked
from scripts.bench import photo, predict
from scripts.bench.pool import measure_each
from scripts.bench.pool import table as pool_table
from scripts.bench.scaling import table as scaling_table
from tests.markdown import table_rows
from tests.open_clip_models import CONFIGS, write_model

MACHINE = photo.Limits({torch.float32: 1e9, torch.bfloat16: 1e9}, 1e9)


@pytest.mark.parametrize(("groups", "kind"), [(1, photo.DENSE), (8, photo.DEPTHWISE)])
def test_operations_of_a_convolution(groups: int, kind: str) -> None:
    conv = torch.nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)
    images = torch.randn(2, 8, 5, 5, requires_grad=True)
    one_pass = 2 * 2 * 8 * 5 * 5 * (8 // groups) * 3 * 3  # multiply and add: images, channels, positions, inputs
    seconds = []
    for cost in (MACHINE, photo.Limits(MACHINE.operations, 1e30)):  # with infinitely fast memory
        with photo.Meter(cost) as meter:
            conv(images).sum().backward()
        seconds.append(meter.costs[kind].least)
    assert seconds[1] == pytest.approx(3 * one_pass / 1e9)
    assert seconds[0] >= seconds[1]


def test_rows_of_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model(tmp_path / "cnn", CONFIGS["timm-cnn"])
    assert photo.main(["--backbones", f"open_clip:{folder}", "--batch", "2", "--repeats", "1"]) == 0
    _, *rows = table_rows(capsys.readouterr().out)
    assert [row[3] for row in rows] == ["Phase II step", "Phase I step", "prediction"]


def test_run_path_is_relative_to_the_callers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["bench", "run", "images"])
    assert predict.measure() == 2
    assert f"{tmp_path / 'run'}: no such folder" in capsys.readouterr().err


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
