"""The loop of a run without Dassl."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from coft.core.errors import UserError
from coft.core.method_errors import MethodError
from coft.core.precision import step_attention
from coft.core.progress import bar
from coft.method.protocol import Method, Runtime


def train(
    method: Any, visual: nn.Module, runtime: Runtime, start: int = 0, ended: Callable[[int], None] = lambda epoch: None
) -> None:
    """Run a method to its end, as a trainer of Dassl does. Its models are in evaluation mode then.

    Args:
        method: A method with `steps`.
        visual: The frozen image encoder, for what training steps are faster with.
        runtime: The method's.
        start: Epochs that are done already.
        ended: Called after each epoch with its number, from 0.

    Raises:
        UserError: If the images or settings are such that it cannot go on.
    """
    total = sum(method.steps(method.phase(epoch)) for epoch in range(start, method.epochs))
    with _readable(), bar(total=total) as shown:
        if not start:
            method.begin()
        for epoch in range(start, method.epochs):
            shown.set_description(f"Phase {method.phase(epoch)}, epoch {epoch + 1} of {method.epochs}")
            _run_epoch(method, visual, runtime, epoch, shown)
            ended(epoch)
    _set_mode(method, training=False)


def _run_epoch(method: Method, visual: nn.Module, runtime: Runtime, epoch: int, shown: Any) -> None:
    batches = method.begin_epoch(epoch)
    _set_mode(method, training=True)
    with step_attention(visual, runtime.device.type, runtime.dtype):
        for batch in batches:
            method.step(batch)
            shown.update()
    method.end_epoch(epoch)


def _set_mode(method: Method, training: bool) -> None:
    for model in method.models.values():
        model.train(training)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except MethodError as error:
        raise UserError(str(error)) from error
    except FloatingPointError as error:
        raise UserError(f"{error}; lower the learning rate, or look for images or settings that overflow") from error
