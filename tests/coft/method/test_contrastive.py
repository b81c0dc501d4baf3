from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coft.labelling.pseudo_labels import PseudoLabels
from coft.method.contrastive import KeyQueue, contrast_masks, contrastive_loss


def unit(*shape: int, source: torch.Generator) -> torch.Tensor:
    x = torch.randn(*shape, generator=source, dtype=torch.float64)
    return (x / x.norm(dim=-1, keepdim=True)).requires_grad_(True)


def naive_loss(z: Any, own_keys: Any, keys: Any, positives: Any, negatives: Any, temperature: float) -> Any:
    """Anchor by anchor, positive by positive."""
    losses = []
    for i in range(len(z)):
        scores = {"own": (z[i] * own_keys[i]).sum() / temperature}
        scores |= {j: (z[i] * keys[j]).sum() / temperature for j in range(len(keys))}
        compared = ["own", *(j for j in range(len(keys)) if positives[i, j] or negatives[i, j])]
        total = sum(torch.exp(scores[j]) for j in compared)
        positive = ["own", *(j for j in range(len(keys)) if positives[i, j])]
        losses.append(-sum(torch.log(torch.exp(scores[j]) / total) for j in positive) / len(positive))
    return torch.stack(losses)


@pytest.mark.parametrize("num_keys", [0, 1, 7])
def test_the_contrastive_loss_equals_a_naive_loop_with_gradients(num_keys: int) -> None:
    source = torch.Generator().manual_seed(num_keys)
    z, own_keys, keys = (unit(n, 5, source=source) for n in (4, 4, num_keys))
    kind = torch.randint(3, (4, num_keys), generator=source)
    args = (z, own_keys, keys, kind == 0, kind == 1, 0.5)
    loss, expected = contrastive_loss(*args), naive_loss(*args)
    torch.testing.assert_close(loss, expected)
    loss, expected = loss.mean(), expected.mean()
    inputs = [z, own_keys, keys] if num_keys else [z, own_keys]
    for a, b in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_masks_equal_a_naive_loop(seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    labels = PseudoLabels.of_pool(torch.randint(3, (12,), generator=source), torch.rand(12, generator=source))
    index, queued = torch.randint(12, (5,), generator=source), torch.randint(12, (9,), generator=source)
    positives, negatives = contrast_masks(index, queued, labels)
    for i, a in enumerate(index.tolist()):
        for j, b in enumerate(queued.tolist()):
            same, clean = labels.label[a] == labels.label[b], labels.keep[a] and labels.keep[b]
            assert positives[i, j] == bool(same and clean and a != b)
            assert negatives[i, j] == bool(labels.label[a] != labels.label[b])
            if a == b:
                assert not positives[i, j] and not negatives[i, j]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.lists(st.integers(1, 9), max_size=6))
def test_the_queue_keeps_the_last_keys(size: int, pushes: list[int]) -> None:
    queue, pushed = KeyQueue(size, 2), []
    for count in pushes:
        index = torch.arange(len(pushed), len(pushed) + count)
        queue.push(torch.stack([index, -index], dim=1).float(), index)
        pushed += index.tolist()
    keys, index = queue.filled()
    assert sorted(index.tolist()) == pushed[-size:]
    assert torch.equal(keys, torch.stack([index, -index], dim=1).float())
