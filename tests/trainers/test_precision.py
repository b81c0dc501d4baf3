"""Precision of the forward pass: settled in the config, kept by a run that goes on, never that of the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from yacs.config import CfgNode

from coft.core.experiment import claim
from tests.trainers.conftest import weights
from trainers import config as settings


def test_auto_is_settled_in_the_config_and_a_continued_run_keeps_it(
    configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
def test_bf16_trains_fp32_weights(
    run: Callable[..., Any], trained: Callable[..., Any], tmp_path: Path, trainer: str, backbone: str
) -> None:
    built = run(trainer, backbone, **{f"TRAINER__{trainer.upper()}__PREC": "bf16"})
    rounded, exact = weights(built), weights(trained(trainer, backbone))
    assert {value.dtype for value in rounded.values() if value.is_floating_point()} == {torch.float32}
    assert any(not torch.equal(a, b) for a, b in zip(rounded.values(), exact.values(), strict=True))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["precision"] == "bf16"


def test_half_precision_on_a_cpu_is_run_as_fp32(run: Callable[..., Any]) -> None:
    trainer = run("CoOp", train=False, TRAINER__COOP__PREC="fp16")
    assert trainer.session.precision == "fp32" and trainer.session.runtime.dtype is None
