from __future__ import annotations

import pytest
import torch

from coft.backbones.residual_block import is_plain_block, run_block
from tests.coft.backbones.test_text_tower import EXACT, double_clip


@pytest.mark.parametrize("rows", [slice(None), slice(1), slice(2, 5)])
@pytest.mark.parametrize("plain", [True, False])
def test_a_block_is_clips_own_in_values_and_gradients(rows: slice, plain: bool) -> None:
    block = double_clip().visual.transformer.resblocks[0].requires_grad_(True)
    torch.manual_seed(3)
    x = torch.randn(3, 7, 64, dtype=torch.float64, requires_grad=True)
    inputs = [x, *block.parameters()]
    expected = block(x.transpose(0, 1)).transpose(0, 1)[:, rows]
    weight = torch.randn_like(expected)
    gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    if not plain:
        block.mlp = torch.nn.Sequential(block.mlp)
    assert is_plain_block(block) is plain
    found = run_block(block, x, rows)
    torch.testing.assert_close(found, expected, **EXACT)
    for a, b in zip(torch.autograd.grad((found * weight).sum(), inputs), gradients, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
