from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from coft.backbones.prompts import DualPrompts, PromptLearner, encode_prompts
from coft.backbones.residual_block import is_plain_block, run_block
from coft.backbones.text_tower import encode_classes, encode_text, pack
from coft.backbones.tower import tower_of
from tests.conftest import make_clip

from .references import EXACT, coop_prompts, double_clip, plain_encode

NAMES = ["cat", "golden_retriever", "a very long name of many words", "pelagic_cormorant", "bus", "dog"]


def learners_of(model: Any, names: Sequence[str], count: int, num_ctx: int = 4, **form: Any) -> list[PromptLearner]:
    source = torch.Generator().manual_seed(count)
    shape = (len(names), num_ctx) if form.pop("class_specific", False) else (num_ctx,)
    contexts = [torch.randn(*shape, 64, dtype=torch.float64, generator=source) for _ in range(count)]
    return [PromptLearner(model, names, context, **form) for context in contexts]


def features_and_gradients(features: Tensor, contexts: Sequence[Tensor]) -> list[Tensor]:
    weight = torch.randn(features.shape, dtype=features.dtype, generator=torch.Generator().manual_seed(7))
    return [features, *torch.autograd.grad((features * weight).sum(), list(contexts))]


def plain_results(
    model: Any, names: list[str], learners: Sequence[PromptLearner], position: str = "end"
) -> list[Tensor]:
    """Features and gradients from 77 tokens per class, one pass per prompt."""
    contexts = [learner.ctx.detach().clone().requires_grad_(True) for learner in learners]
    rows = [plain_encode(model, *coop_prompts(model, names, context, position)) for context in contexts]
    return features_and_gradients(torch.stack(rows), contexts)


def fast_results(model: Any, learners: Sequence[PromptLearner]) -> list[Tensor]:
    return features_and_gradients(encode_prompts(model, *learners), [learner.ctx for learner in learners])


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("num_ctx", [1, 16])
def test_a_shared_prefix_is_exact_in_features_and_gradients(count: int, num_ctx: int) -> None:
    model = double_clip()
    learners = learners_of(model, NAMES, count, num_ctx)
    assert learners[0].shared and tower_of(model).shares_prefix
    for a, b in zip(fast_results(model, learners), plain_results(model, NAMES, learners), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_many_classes_in_many_blocks_are_exact() -> None:
    model = double_clip(layers=2)
    names = [" ".join(["word"] * (1 + i % 9)) + f" {i}" for i in range(40)]
    learners = learners_of(model, names, 2)
    assert len(pack(learners[0].lengths).mask) > 5
    for a, b in zip(fast_results(model, learners), plain_results(model, names, learners), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("form", [{"position": "middle"}, {"position": "front"}, {"class_specific": True}])
def test_other_prompts_are_cut_at_the_end_of_text_and_exact(form: dict[str, Any]) -> None:
    model = double_clip()
    learners = learners_of(model, NAMES, 2, **form)
    assert not learners[0].shared
    expected = plain_results(model, NAMES, learners, form.get("position", "end"))
    for a, b in zip(fast_results(model, learners), expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


class ChangedBlock(torch.nn.Module):
    """A block with a different MLP module."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.attn, self.ln_1, self.mlp, self.ln_2 = block.attn, block.ln_1, torch.nn.Sequential(block.mlp), block.ln_2


def test_a_changed_tower_is_cut_at_the_end_of_text_and_exact() -> None:
    model = double_clip()
    learners = learners_of(model, NAMES, 2)
    expected = plain_results(model, NAMES, learners)
    model.transformer.resblocks[1] = ChangedBlock(model.transformer.resblocks[1])
    assert not tower_of(model).shares_prefix
    for a, b in zip(fast_results(model, learners), expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_without_a_causal_mask_no_prefix_is_shared() -> None:
    model = double_clip()
    for block in model.transformer.resblocks:
        block.attn_mask = None
    assert not tower_of(model).shares_prefix


def bytes_saved(model: Any, function: Callable[[], Tensor]) -> tuple[int, Tensor]:
    """Bytes that are saved for the backward pass, without the weights, and the result."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        result = function()
    return sum(size for address, size in kept.items() if address not in weights), result


@pytest.mark.parametrize("position", ["end", "middle"])
def test_a_budget_changes_memory_only(position: str) -> None:
    model = double_clip()
    names = [f"{'thing ' * (i % 4)}{i}" for i in range(200)]
    (learner,) = learners_of(model, names, 1, position=position)

    def encode(budget: int) -> Tensor:
        if position == "end":
            return encode_classes(model, learner.prefix()[None], learner.suffix(), learner.lengths, budget)
        return encode_text(model, *learner(), budget)

    unlimited, expected = bytes_saved(model, lambda: encode(1 << 40))
    kept, features = bytes_saved(model, lambda: encode(unlimited // 6))
    assert kept < unlimited / 4
    pairs = (features_and_gradients(x, [learner.ctx]) for x in (features, expected))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_dual_prompts_share_one_pass() -> None:
    model = make_clip(vit=True)
    prompts = DualPrompts(model, NAMES, "a photo of a {}.", generator=torch.Generator().manual_seed(0))
    calls = []
    model.transformer.resblocks[-1].attn.out_proj.register_forward_hook(lambda *_: calls.append(1))
    prompts()
    assert len(calls) == 1


@pytest.mark.parametrize("lengths", [(3,), (2, 9, 4), tuple(2 + i % 7 for i in range(60)), (50, 3, 3)])
def test_packing_places_every_token_once_and_masks_other_classes(lengths: tuple[int, ...]) -> None:
    packed = pack(lengths)
    owner, token = packed.tokens
    for i, length in enumerate(lengths):
        row, end = packed.ends[:, i].tolist()
        positions = slice(end - length + 1, end + 1)
        assert owner[row, positions].tolist() == [i] * length
        assert token[row, positions].tolist() == list(range(length))
        for step, mask in enumerate(packed.mask[row, positions]):
            expected = torch.zeros(len(mask), dtype=torch.bool)
            expected[positions.start : positions.start + step + 1] = True
            assert torch.equal(mask, expected)
    if sum(lengths) > 100:
        assert packed.mask[..., 0].numel() < 1.2 * sum(lengths)


def test_a_parametrised_block_is_not_plain() -> None:
    block = double_clip().transformer.resblocks[0]
    assert is_plain_block(block)
    torch.nn.utils.parametrize.register_parametrization(block.attn, "in_proj_weight", torch.nn.Identity())
    assert not is_plain_block(block)


@pytest.mark.parametrize("rows", [slice(None), slice(1), slice(2, 5)])
@pytest.mark.parametrize("plain", [True, False])
def test_a_block_equals_that_of_clip_in_values_and_gradients(rows: slice, plain: bool) -> None:
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
    output = run_block(block, x, rows)
    torch.testing.assert_close(output, expected, **EXACT)
    for a, b in zip(torch.autograd.grad((output * weight).sum(), inputs), gradients, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
