from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from yacs.config import CfgNode

from coft.runtime.experiment import claim
from coft.runtime.precision import SHORT, faster_precision, step_attention
from tests.coft.backbones.test_text_tower import EXACT, double_clip
from tests.conftest import make_clip
from tests.trainers.conftest import assert_same_bits, weights
from tests.trainers.test_label_free import changed, shuffle_files
from trainers import config as settings


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx512_bf16": False}, "fp32"), ({}, "fp32")],
)
def test_auto_follows_the_cpu(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert faster_precision("cpu") == expected


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "amp")])
def test_auto_follows_the_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert faster_precision("cuda") == expected


def test_auto_is_settled_in_the_config_and_a_continued_run_keeps_it(
    configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "faster_precision", lambda device: "bf16")
    cfg = configure("CoFT", TRAINER__COFT__PREC="auto")
    assert cfg.TRAINER.COFT.PREC == "bf16"
    claim(cfg)
    monkeypatch.setattr(settings, "faster_precision", lambda device: "fp32")
    assert configure("CoFT", TRAINER__COFT__PREC="auto").TRAINER.COFT.PREC == "bf16"
    assert configure("CoFT", TRAINER__COFT__PREC="auto", out="other").TRAINER.COFT.PREC == "fp32"
    resumed = configure("CoFT", TRAINER__COFT__PREC="auto", out="third", RESUME=str(tmp_path / "out"))
    assert resumed.TRAINER.COFT.PREC == "bf16"
    evaluated = CfgNode({"TRAINER": {"COFT": {"PREC": "auto"}}, "RESUME": "", "OUTPUT_DIR": "", "USE_CUDA": False})
    settings.settle_precision(evaluated, str(tmp_path / "out"))
    assert evaluated.TRAINER.COFT.PREC == "bf16"


@pytest.mark.parametrize("backbone", ["resnet", "vit"])
def test_bf16_trains_fp32_weights_and_no_label_order_or_name_changes_a_bit(
    run: Callable[..., Any], shapes: Path, tmp_path: Path, backbone: str
) -> None:
    short = {"TRAINER__COFT__PHASE1__EPOCHS": 1, "TRAINER__COFT__PHASE2__EPOCHS": 1, "TRAINER__COFT__EVAL_FREQ": 0}
    one = run("CoFT", backbone, out="one", TRAINER__COFT__PREC="bf16", **short)
    root = changed(shapes, tmp_path / "shuffled", shuffle_files)
    two = run("CoFT", backbone, out="two", root=root, TRAINER__COFT__PREC="bf16", **short)
    assert_same_bits(weights(one), weights(two))
    assert {value.dtype for value in weights(one).values() if value.is_floating_point()} == {torch.float32}
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert summary["precision"] == "bf16"
    exact = run("CoFT", backbone, out="exact", **short)
    assert any(not torch.equal(a, b) for a, b in zip(weights(one).values(), weights(exact).values(), strict=True))


def test_logits_and_log_odds_are_no_coarser_than_the_features(run: Callable[..., Any]) -> None:
    """In bf16 a logit of 25 would be off by up to 1/16, and so would a log-odds near 0."""
    trainer = run("CoFT", train=False, TRAINER__COFT__PREC="bf16")
    with torch.no_grad(), trainer.autocast():
        logits, odds = trainer.peers["peer_a"].learner()(torch.randn(4, 3, 32, 32))
    for values in (logits, odds):
        assert values.dtype == torch.float32
        assert not torch.equal(values, values.bfloat16().float())


def test_prompt_learning_has_fine_logits_too(run: Callable[..., Any]) -> None:
    trainer = run("CoOp", train=False, TRAINER__COOP__PREC="bf16")
    logits = trainer.logits(torch.randn(4, 3, 32, 32))
    assert logits.dtype == torch.float32 and not torch.equal(logits, logits.bfloat16().float())


@pytest.mark.parametrize(
    ("tokens", "device", "dtype", "fused"),
    [
        (SHORT, "cpu", torch.bfloat16, False),
        (SHORT + 1, "cpu", torch.bfloat16, True),
        (SHORT, "cpu", None, True),
        (SHORT, "cuda", torch.bfloat16, True),
        (None, "cpu", torch.bfloat16, True),
    ],
)
def test_short_sequences_leave_the_fused_kernel(
    tokens: int | None, device: str, dtype: torch.dtype | None, fused: bool
) -> None:
    visual = torch.nn.Module()
    if tokens:
        visual.positional_embedding = torch.nn.Parameter(torch.zeros(tokens, 4))
    with step_attention(visual, device, dtype):
        assert torch.backends.cuda.flash_sdp_enabled() == fused  # the switch of all devices
    assert torch.backends.cuda.flash_sdp_enabled()


def test_both_kernels_have_the_same_gradients() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    visual = double_clip(vision_layers=2).visual.requires_grad_(True)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        visual.zero_grad()
        with sdpa_kernel(backend):
            visual(images).square().sum().backward()
        found.append([p.grad.clone() for p in visual.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_the_layout_in_memory_changes_no_feature_and_no_gradient() -> None:
    """Convolutions of weights that are stored channels last are another kernel."""
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        visual = make_clip(False, 0).visual.double().to(memory_format=layout).requires_grad_(True)
        features = visual(images)
        features.square().sum().backward()
        found.append([features, *(p.grad for p in visual.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
