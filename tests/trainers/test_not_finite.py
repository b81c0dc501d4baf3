"""Weights that are not finite are never saved, tested or reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from coft.engine.engine import Engine
from tests.trainers.runs import QUICK


@pytest.fixture
def command(tmp_path: Path, shapes: Path, checkpoints: dict[str, Path]) -> list[str]:
    argv = ["--trainer", "CoFT", "--root", str(shapes), "--output-dir", str(tmp_path / "out"), "--seed", "1"]
    return [*argv, "--backbone", str(checkpoints["resnet"]), "DATASET.NAME", "Shapes", *QUICK]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_backbone_with_values_that_are_not_finite_is_refused(
    value: float, tmp_path: Path, command: list[str], checkpoints: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(checkpoints["resnet"], weights_only=True)
    state["visual.conv1.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "bad.pt")
    assert train.main([*command, "MODEL.BACKBONE.NAME", str(tmp_path / "bad.pt")]) == 2
    assert "bad.pt: visual.conv1.weight has values that are not finite" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_that_diverge_in_the_last_step_are_not_saved(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    step: Callable[..., Any] = Engine.step
    calls: list[int] = []

    def diverging(self: Engine, batch: Any) -> dict[str, float]:
        losses = step(self, batch)
        calls.append(1)
        if len(calls) == 2:  # the last step of the epoch: no loss shows it
            next(self.method.models["peer_a"].parameters()).data.fill_(torch.nan)
        return losses

    monkeypatch.setattr(Engine, "step", diverging)
    assert train.main(command) == 2
    assert "epoch 1: peer_a." in (line := capfd.readouterr().err) and "lower OPTIM.LR" in line
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_not_finite_is_neither_evaluated_nor_resumed(
    tmp_path: Path, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(command) == 0
    for path in (tmp_path / "out").glob("peer_b/model.pth.tar-*"):
        checkpoint = torch.load(path, weights_only=True)
        next(x for x in checkpoint["state_dict"].values() if x.is_floating_point()).view(-1)[0] = torch.nan
        torch.save(checkpoint, path)
    output = ["--output-dir", str(tmp_path / "other")]
    for flags in (["--eval-only", "--model-dir", str(tmp_path / "out")], ["--resume", str(tmp_path / "out")]):
        capfd.readouterr()
        assert train.main([*output, *flags, *command[:4], *command[6:]]) == 2
        assert "values that are not finite" in capfd.readouterr().err


def test_a_flipped_bit_of_a_checkpoint_is_detected(
    tmp_path: Path, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(command) == 0
    file = tmp_path / "out" / "peer_a" / "model.pth.tar-2"
    saved = torch.load(file, weights_only=True)["state_dict"].values()
    weights = max((value for value in saved if torch.is_tensor(value) and value.dim() == 2), key=torch.numel)
    data = bytearray(file.read_bytes())
    data[data.find(weights.numpy().tobytes()) + 40] ^= 1
    file.write_bytes(data)
    assert train.main(["--eval-only", "--model-dir", str(tmp_path / "out"), *command]) == 2
    assert "model.pth.tar-2 is damaged (checksum of " in capfd.readouterr().err
