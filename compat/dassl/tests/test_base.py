"""Base trainer: models, steps and hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dassl.engine.trainer import TrainerBase


def base(**optims: Any) -> TrainerBase:
    trainer = TrainerBase()
    for name, optim in optims.items():
        trainer.register_model(name, nn.Linear(2, 1), optim)
    return trainer


def test_registration() -> None:
    trainer = base(a=None, b=None)
    assert trainer.get_model_names() == ["a", "b"]
    assert trainer.get_model_names("b") == ["b"]
    assert trainer.get_model_names(["b", "a"]) == ["b", "a"]
    assert list(trainer._models) == list(trainer._optims) == list(trainer._scheds) == ["a", "b"]
    with pytest.raises(AssertionError):
        trainer.register_model("a", nn.Linear(1, 1))
    with pytest.raises(AssertionError):
        trainer.get_model_names("c")

    class WithoutInit(TrainerBase):
        def __init__(self) -> None:
            self.register_model("model", nn.Linear(1, 1))

    with pytest.raises(AttributeError):
        WithoutInit()


def test_modes() -> None:
    trainer, models = TrainerBase(), [nn.Linear(2, 1), nn.Linear(2, 1)]
    for name, model in zip("ab", models, strict=True):
        trainer.register_model(name, model)
    trainer.set_model_mode("eval", ["a"])
    assert [model.training for model in models] == [False, True]
    trainer.set_model_mode("test")
    assert not any(model.training for model in models)
    trainer.set_model_mode("train")
    assert all(model.training for model in models)
    with pytest.raises(KeyError):
        trainer.set_model_mode("play")


def test_steps() -> None:
    trainer = TrainerBase()
    models, optims = {}, []
    for name in ("a", "b"):
        models[name] = nn.Linear(2, 1, bias=False)
        optim = torch.optim.SGD(models[name].parameters(), lr=1.0)
        optims.append(optim)
        trainer.register_model(name, models[name], optim, torch.optim.lr_scheduler.StepLR(optim, 1, 0.5))
    before = {name: model.weight.clone() for name, model in models.items()}
    loss = sum(model(torch.ones(1, 2)).sum() for model in models.values())
    trainer.model_backward_and_update(loss, "a")
    assert torch.equal(models["a"].weight, before["a"] - 1)
    assert torch.equal(models["b"].weight, before["b"])
    trainer.model_zero_grad()
    assert models["b"].weight.grad is None or not models["b"].weight.grad.any()
    trainer.model_update("b")
    trainer.update_lr("b")
    assert [optim.param_groups[0]["lr"] for optim in optims] == [1.0, 0.5]
    trainer.update_lr()
    assert [optim.param_groups[0]["lr"] for optim in optims] == [0.5, 0.25]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_non_finite_loss_is_refused(value: str) -> None:
    with pytest.raises(FloatingPointError, match="Loss is infinite or NaN!"):
        base(a=None).model_backward_and_update(torch.tensor(float(value), requires_grad=True))


def test_order_of_hooks() -> None:
    calls: list[Any] = []

    class Hooks(TrainerBase):
        def before_train(self) -> None:
            calls.append("before_train")
            self.start_epoch += 1

        def after_train(self) -> None:
            calls.append("after_train")

        def before_epoch(self) -> None:
            calls.append("before_epoch")

        def run_epoch(self) -> None:
            calls.append(self.epoch)

        def after_epoch(self) -> None:
            calls.append("after_epoch")

    Hooks().train(1, 4)
    epochs = [call for epoch in (2, 3) for call in ("before_epoch", epoch, "after_epoch")]
    assert calls == ["before_train", *epochs, "after_train"]
