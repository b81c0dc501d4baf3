"""Optimizers of both phases against their formulas, also after a resume."""

from __future__ import annotations

import copy
import io
import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from coft.engine.optimizers import (
    WEIGHT_DECAY,
    build,
    full_optimizer,
    light_optimizer,
)
from coft.labelling.classifier import Classifier
from coft.labelling.protocol import Tuning


def test_the_optimizer_of_phase_one_is_sgd_with_momentum_and_decay() -> None:
    trained, expected = (nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64)) for _ in range(2))
    optimizer, velocity = light_optimizer([trained]), torch.zeros(2, dtype=torch.float64)
    for step in range(4):
        optimizer.zero_grad()
        (trained.square().sum() * (step + 1)).backward()
        optimizer.step()
        with torch.no_grad():
            velocity = 0.9 * velocity + 2 * expected * (step + 1) + WEIGHT_DECAY * expected
            expected -= 0.03 * velocity
    torch.testing.assert_close(trained, expected)


# -------------------------------------------------------------------- full fine-tuning


STEPS = 6
RATE, HEAD_RATE = 1e-2, 3.0
TUNING = Tuning(STEPS, RATE, HEAD_RATE)


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
    rates = {n: RATE if n.startswith("encoder.") else HEAD_RATE * RATE for n, _ in model.named_parameters()}
    first, second = ({n: torch.zeros_like(p) for n, p in model.named_parameters()} for _ in range(2))
    for step in range(steps):
        model.zero_grad()
        loss_of(model, step).backward()
        for name, p in model.named_parameters():
            lr, g = rates[name] * (1 + math.cos(math.pi * step / steps)) / 2, p.grad
            with torch.no_grad():
                p -= lr * WEIGHT_DECAY * p
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g * g
                m, v = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
                p -= lr * m / (v.sqrt() + 1e-8)


def test_steps_equal_naive_adamw_also_after_a_resume() -> None:
    plain, fused = classifier(), classifier()
    naive_adamw(plain, STEPS)
    optimizer, schedule = build(fused, TUNING, light_optimizer)
    for step in range(STEPS):
        if step == 3:  # a resume
            file = io.BytesIO()
            torch.save([fused.state_dict(), optimizer.state_dict(), schedule.state_dict()], file)
            weights, moments, counts = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            fused = copy.deepcopy(classifier())
            optimizer, schedule = build(fused, TUNING, light_optimizer)
            fused.load_state_dict(weights), optimizer.load_state_dict(moments), schedule.load_state_dict(counts)
        optimizer.zero_grad()
        loss_of(fused, step).backward()
        optimizer.step()
        schedule.step()
    for (name, a), (_, b) in zip(plain.named_parameters(), fused.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12, msg=name)


def test_frozen_weights_are_left_out_and_heads_have_their_own_rate() -> None:
    model = classifier()
    model.encoder[0].requires_grad_(False)
    optimizer = full_optimizer(model, RATE, 10.0)
    groups = [({id(p) for p in group["params"]}, group["lr"]) for group in optimizer.param_groups]
    light = {id(p) for p in model.encoder[2].parameters()}
    assert groups == [(light, RATE), ({id(model.positive), id(model.negative)}, 10 * RATE)]
    assert Tuning(STEPS, RATE).head_rate == 10


def test_learning_rates_follow_a_cosine_over_the_phase() -> None:
    light = partial(torch.optim.SGD, lr=1.0)
    (optimizer, schedule), rates = build(nn.Linear(1, 1), Tuning(12), light), list[float]()
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([(1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)])
