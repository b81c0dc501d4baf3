"""Schedules, optimizers by name, and their state."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.optim.radam import RAdam
from toys import UPSTREAM, follow, warmup_fault

warmup_works = warmup_fault("TypeError on every schedule with warm-up")


def optim_cfg(**options: Any) -> Any:
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list([item for pair in options.items() for item in pair])
    return cfg


def model(**layers: nn.Module) -> nn.Module:
    return nn.ModuleDict({"body": nn.Linear(3, 2), "head": nn.Linear(2, 2), **layers})


def rates(epochs: int = 6, **options: Any) -> list[float]:
    defaults = {"NAME": "sgd", "LR": 1.0, "MAX_EPOCH": 6, "WARMUP_CONS_LR": 0.01, "WARMUP_MIN_LR": 0.001}
    cfg = optim_cfg(**{**defaults, "WARMUP_TYPE": "constant", **options})
    optimizer = build_optimizer(model(), cfg)
    return follow(optimizer, build_lr_scheduler(optimizer, cfg), epochs)


COSINE = {"LR_SCHEDULER": "cosine"}
STEP = {"LR_SCHEDULER": "single_step", "STEPSIZE": (2,)}
STEPS = {"LR_SCHEDULER": "multi_step", "STEPSIZE": (2, 4)}
LINEAR = {"WARMUP_TYPE": "linear"}
AFTER = {"WARMUP_RECOUNT": False}
WITHOUT_WARMUP = [
    (COSINE, [1, 0.93301, 0.75, 0.5, 0.25, 0.06699]),
    (STEP, [1, 1, 0.1, 0.1, 0.01, 0.01]),
    (STEPS, [1, 1, 0.1, 0.1, 0.01, 0.01]),
    ({"LR_SCHEDULER": "single_step", "STEPSIZE": (-1,), "MAX_EPOCH": 4}, [1, 1, 1, 1, 0.1, 0.1]),
    ({"LR_SCHEDULER": "single_step", "STEPSIZE": (1, 3), "GAMMA": 0.5}, [1, 1, 1, 0.5, 0.5, 0.5]),
]
WITH_WARMUP = [
    ({**COSINE, "WARMUP_EPOCH": 1}, [0.01, 1, 0.93301, 0.75, 0.5, 0.25]),
    ({**COSINE, **LINEAR, "WARMUP_EPOCH": 2}, [0.001, 0.5, 1, 0.93301, 0.75, 0.5]),
    ({**COSINE, **LINEAR, "WARMUP_EPOCH": 3}, [0.001, 0.33333, 0.66667, 1, 0.93301, 0.75]),
    ({**COSINE, **AFTER, "WARMUP_EPOCH": 2}, [0.01, 0.01, 1, 0.66667, 0.33333, 0.08932]),
    ({**STEP, "WARMUP_EPOCH": 1}, [0.01, 1, 1, 0.1, 0.1, 0.01]),
    ({**STEP, **LINEAR, "WARMUP_EPOCH": 2}, [0.001, 0.5, 1, 1, 0.1, 0.1]),
    ({**STEPS, "WARMUP_EPOCH": 1}, [0.01, 1, 1, 0.1, 0.1, 0.01]),
    ({**STEPS, **LINEAR, "WARMUP_EPOCH": 2}, [0.001, 0.5, 1, 1, 0.1, 0.1]),
    ({**STEPS, **AFTER, "WARMUP_EPOCH": 1}, [0.01, 1, 0.1, 0.1, 0.01, 0.01]),
]


@pytest.mark.parametrize(("options", "expected"), WITHOUT_WARMUP)
def test_rates_without_warmup(options: dict[str, Any], expected: list[float]) -> None:
    assert rates(**options) == pytest.approx(expected, abs=1e-5)


@warmup_works
@pytest.mark.parametrize(("options", "expected"), WITH_WARMUP)
def test_rates_after_warmup(options: dict[str, Any], expected: list[float]) -> None:
    assert rates(**options) == pytest.approx(expected, abs=1e-5)


@warmup_works
@pytest.mark.parametrize("num_epochs", [1, 2, 4])
@pytest.mark.parametrize("schedule", [COSINE, STEPS], ids=["cosine", "multi_step"])
def test_schedule_resumes_from_plain_data(schedule: dict[str, Any], num_epochs: int) -> None:
    options = {**schedule, **LINEAR, "WARMUP_EPOCH": 2, "NAME": "sgd", "LR": 1.0, "MAX_EPOCH": 6}
    cfg = optim_cfg(**options)

    def build() -> Any:
        optimizer = build_optimizer(model(), cfg)
        return optimizer, build_lr_scheduler(optimizer, cfg)

    first, second = build(), build()
    follow(*first, num_epochs)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first], file)
    file.seek(0)
    for part, state in zip(second, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    assert follow(*second, 4) == follow(*first, 4)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"LR_SCHEDULER": "exponential"}, ValueError),
        ({"LR_SCHEDULER": "multi_step", "STEPSIZE": 3}, TypeError),
        ({"LR_SCHEDULER": "single_step", "STEPSIZE": (2.5,)}, TypeError),
        ({"WARMUP_EPOCH": 1, "WARMUP_TYPE": "sudden"}, ValueError),
    ],
)
def test_invalid_schedules_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    cfg = optim_cfg(NAME="sgd")
    for key, value in options.items():
        cfg[key] = value
    with pytest.raises(error):
        build_lr_scheduler(build_optimizer(model(), cfg), cfg)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.9), "amsgrad": False}),
        ("amsgrad", torch.optim.Adam, {"betas": (0.8, 0.9), "amsgrad": True}),
        ("sgd", torch.optim.SGD, {"momentum": 0.7, "dampening": 0, "nesterov": True}),
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0.7, "alpha": 0.6}),
        ("radam", RAdam, {"betas": (0.8, 0.9)}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.9)}),
    ],
)
def test_optimizers_by_name(name: str, kind: type, expected: dict[str, Any]) -> None:
    options = {"MOMENTUM": 0.7, "SGD_NESTEROV": True, "RMSPROP_ALPHA": 0.6, "ADAM_BETA1": 0.8, "ADAM_BETA2": 0.9}
    cfg = optim_cfg(NAME=name, LR=0.02, WEIGHT_DECAY=0.03, **options)
    for parameters in (model(), list(model().parameters())):
        optimizer = build_optimizer(parameters, cfg)
        assert type(optimizer) is kind
        (group,) = optimizer.param_groups
        assert len(group["params"]) == 4
        assert {key: group[key] for key in expected} == expected
        assert (group["lr"], group["weight_decay"]) == (0.02, 0.03)


def test_staged_rates() -> None:
    cfg = optim_cfg(LR=0.1, STAGED_LR=True, NEW_LAYERS=["head"], BASE_LR_MULT=0.5)
    staged = model()
    base, new = build_optimizer(staged, cfg).param_groups
    assert [base["lr"], new["lr"]] == [0.05, 0.1]
    assert [id(p) for p in base["params"]] == [id(p) for p in staged["body"].parameters()]  # type: ignore[index]
    assert [id(p) for p in new["params"]] == [id(p) for p in staged["head"].parameters()]  # type: ignore[index]
    wrapped = build_optimizer(nn.DataParallel(staged), cfg).param_groups
    assert [len(group["params"]) for group in wrapped] == [2, 2]


def test_parameter_groups_replace_staged_rates() -> None:
    groups = [{"params": list(model().parameters()), "lr": 0.5}]
    with pytest.warns(UserWarning):
        optimizer = build_optimizer(model(), optim_cfg(STAGED_LR=True), param_groups=groups)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5]


def reference_radam(weight: float, gradients: list[float], lr: float, decay: float) -> float:
    """RAdam of the paper's algorithm 2 for one weight, with decoupled decay. Liu et al. 2020."""
    beta1, beta2, mean, square = 0.9, 0.999, 0.0, 0.0
    longest = 2 / (1 - beta2) - 1
    for step, gradient in enumerate(gradients, start=1):
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        length = longest - 2 * step * beta2**step / (1 - beta2**step)
        weight -= lr * decay * weight
        unbiased = mean / (1 - beta1**step)
        if length > 5:
            adaptive = ((1 - beta2**step) / square) ** 0.5
            factor = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            weight -= lr * factor**0.5 * unbiased * adaptive
        else:
            weight -= lr * unbiased
    return weight


@pytest.mark.skipif(UPSTREAM, reason="calls of torch that are gone")
def test_radam_against_the_paper() -> None:
    gradients = [1.0, -0.5, 2.0, 0.3, 0.7, -1.1, 0.2, 0.9, -0.4, 0.6]
    weight = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    optimizer = RAdam([weight], lr=0.1, weight_decay=0.01)
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    assert weight.item() == pytest.approx(reference_radam(3.0, gradients, 0.1, 0.01), rel=1e-6)
