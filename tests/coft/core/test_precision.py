"""The precision of "auto", and the attention kernel of a step."""

from __future__ import annotations

import pytest
import torch

from coft.core.precision import SHORT, faster_precision, step_attention


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx512_bf16": False}, "fp32"), ({}, "fp32")],
)
def test_auto_on_a_cpu(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert faster_precision("cpu") == expected


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "amp")])
def test_auto_on_a_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert faster_precision("cuda") == expected


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
def test_short_sequences_do_not_use_the_fused_kernel(
    tokens: int | None, device: str, dtype: torch.dtype | None, fused: bool
) -> None:
    visual = torch.nn.Module()
    if tokens:
        visual.positional_embedding = torch.nn.Parameter(torch.zeros(tokens, 4))
    with step_attention(visual, device, dtype):
        assert torch.backends.cuda.flash_sdp_enabled() == fused  # one switch for all devices
    assert torch.backends.cuda.flash_sdp_enabled()
