"""Precision of the forward pass: chosen in the config and kept when a run is resumed; weights stay in fp32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from coft.core.experiment import claim
from tests.trainers.conftest import weights
from tests.trainers.runs import Run
from trainers import config as settings


def test_auto_is_resolved_in_the_config_and_kept_when_resumed(
    configure: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("coft.engine.backbone.faster_precision", lambda device: "bf16")
    cfg = configure("CoFT", TRAINER__COFT__PREC="auto")
    assert cfg.TRAINER.COFT.PREC == "bf16"
    claim(cfg)
    monkeypatch.setattr("coft.engine.backbone.faster_precision", lambda device: "fp32")
    assert configure("CoFT", TRAINER__COFT__PREC="auto").TRAINER.COFT.PREC == "bf16"
    assert configure("CoFT", TRAINER__COFT__PREC="auto", out="other").TRAINER.COFT.PREC == "fp32"
    resumed = configure("CoFT", TRAINER__COFT__PREC="auto", out="third", RESUME=str(tmp_path / "out"))
    assert resumed.TRAINER.COFT.PREC == "bf16"
    evaluated = CfgNode({"TRAINER": {"COFT": {"PREC": "auto"}}, "RESUME": "", "OUTPUT_DIR": "", "USE_CUDA": False})
    settings.resolve_precision(evaluated, str(tmp_path / "out"))
    assert evaluated.TRAINER.COFT.PREC == "bf16"


@pytest.mark.parametrize(
    ("trainer", "backbone"), [("CoFT", "vit"), ("DeFT", "resnet"), ("SelfTraining", "vit"), ("CoOp", "resnet")]
)
def test_bf16_trains_fp32_weights(run: Run, trained: Run, tmp_path: Path, trainer: str, backbone: str) -> None:
    built = run(trainer, backbone, **{f"TRAINER__{trainer.upper()}__PREC": "bf16"})
    bf16, fp32 = weights(built), weights(trained(trainer, backbone))
    assert {value.dtype for value in bf16.values() if value.is_floating_point()} == {torch.float32}
    assert any(not torch.equal(a, b) for a, b in zip(bf16.values(), fp32.values(), strict=True))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["precision"] == "bf16"


def test_fp16_on_a_cpu_runs_as_fp32(run: Run) -> None:
    trainer = run("CoOp", train=False, TRAINER__COOP__PREC="fp16")
    assert trainer.session.precision == "fp32" and trainer.session.runtime.dtype is None
