"""Registry of models with their optimizers and schedules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

Names = str | Iterable[str] | None


class Models:
    """Models by name, each with an optional optimizer and schedule."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Any] = OrderedDict()
        self._scheds: OrderedDict[str, Any] = OrderedDict()

    def register_model(
        self, name: str = "model", model: nn.Module | None = None, optim: Any = None, sched: Any = None
    ) -> None:
        """Register a model, so that it is switched between modes, saved, loaded and resumed under its name.

        Args:
            name: Name of the model, and of the folder of its checkpoints.
            model: Model to register.
            optim: Optimizer of the model, if it trains.
            sched: Schedule of the optimizer, if there is one.

        Raises:
            AttributeError: If it is called before `super().__init__()`.
            AssertionError: If the name is taken.
        """
        if "_models" not in self.__dict__:
            raise AttributeError("Cannot assign model before super().__init__() call")
        if name in self._models:
            raise AssertionError(f"Found duplicate model names: {name}")
        self._models[name] = model  # type: ignore[assignment]
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: Names = None) -> list[str]:
        """Return the names of all models, or the given names after a check.

        Raises:
            AssertionError: If no model has a given name.
        """
        if names is None:
            return list(self._models)
        chosen = [names] if isinstance(names, str) else list(names)
        for name in chosen:
            if name not in self._models:
                raise AssertionError(f"no model is registered as {name!r}; expected some of {list(self._models)}")
        return chosen

    def set_model_mode(self, mode: str = "train", names: Names = None) -> None:
        """Put registered models into training or evaluation mode.

        Args:
            mode: "train", "test" or "eval".
            names: Names of the models; default: all models.

        Raises:
            KeyError: If the mode is unknown.
        """
        if mode not in ("train", "test", "eval"):
            raise KeyError(f"mode is {mode!r}; expected train, test or eval")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: Names = None) -> None:
        """Step the schedules of models."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names: Names = None) -> float:
        """Return the learning rate of the first parameter group of the first model with an optimizer.

        Raises:
            ValueError: If no model has an optimizer.
        """
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                return self._optims[name].param_groups[0]["lr"]
        raise ValueError("no registered model has an optimizer")

    def detect_anomaly(self, loss: Tensor) -> None:
        """Check that a loss is finite.

        Raises:
            FloatingPointError: If it is not.
        """
        if not torch.isfinite(loss).all():
            raise FloatingPointError("Loss is infinite or NaN!")

    def model_zero_grad(self, names: Names = None) -> None:
        """Clear the gradients of models with an optimizer."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        """Check that a loss is finite, and compute its gradients."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: Names = None) -> None:
        """Step the optimizers of models."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss: Tensor, names: Names = None) -> None:
        """Make one optimization step on a loss."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)
