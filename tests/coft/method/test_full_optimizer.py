"""The fused optimizer of full fine-tuning makes the steps that AdamW's formulas say, and goes on from a saved state."""

from __future__ import annotations

import copy
import io
import math

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from coft.method.peer import Classifier
from trainers.parts.full_tuning import build_full_optimizer

STEPS = 6
KEYS = CfgNode({"LR": 1e-2, "HEAD_LR": 3e-2, "WEIGHT_DECAY": 0.1})


def classifier() -> Classifier:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)).double()
    encoder.to(memory_format=torch.channels_last)
    heads = [nn.Parameter(torch.randn(3, 5, dtype=torch.float64)) for _ in range(2)]
    return Classifier(encoder, heads[0], heads[1], 10.0)


def loss_of(model: Classifier, step: int) -> Tensor:
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
    logits, odds = model(images)
    return logits.square().mean() + odds.sigmoid().mean()


def naive_adamw(model: Classifier, steps: int) -> None:
    """Decoupled weight decay and bias-corrected moments, weight by weight; learning rates on a cosine."""
    rates = {n: KEYS.LR if n.startswith("encoder.") else KEYS.HEAD_LR for n, _ in model.named_parameters()}
    first, second = ({n: torch.zeros_like(p) for n, p in model.named_parameters()} for _ in range(2))
    for step in range(steps):
        model.zero_grad()
        loss_of(model, step).backward()
        for name, p in model.named_parameters():
            lr, g = rates[name] * (1 + math.cos(math.pi * step / steps)) / 2, p.grad
            with torch.no_grad():
                p -= lr * KEYS.WEIGHT_DECAY * p
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g * g
                m, v = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
                p -= lr * m / (v.sqrt() + 1e-8)


def test_steps_are_those_of_the_formulas_and_a_saved_state_goes_on() -> None:
    plain, fused = classifier(), classifier()
    naive_adamw(plain, STEPS)
    optimizer, schedule = build_full_optimizer(fused, KEYS, STEPS)
    for step in range(STEPS):
        if step == 3:  # as a resumed run does
            file = io.BytesIO()
            torch.save([fused.state_dict(), optimizer.state_dict(), schedule.state_dict()], file)
            weights, moments, counts = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            fused = copy.deepcopy(classifier())
            optimizer, schedule = build_full_optimizer(fused, KEYS, STEPS)
            fused.load_state_dict(weights), optimizer.load_state_dict(moments), schedule.load_state_dict(counts)
        optimizer.zero_grad()
        loss_of(fused, step).backward()
        optimizer.step()
        schedule.step()
    for (name, a), (_, b) in zip(plain.named_parameters(), fused.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12, msg=name)
