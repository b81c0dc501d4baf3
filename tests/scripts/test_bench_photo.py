"""Benchmark of a step: its parts, compared with the limits of the machine."""

from pathlib import Path

import pytest
import torch

from scripts.bench import photo
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
