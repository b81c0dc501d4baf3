"""The loop of a run without Dassl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coft.core.errors import UserError
from coft.core.precision import step_attention
from coft.core.progress import bar

from .session import Session


def fit(session: Session, start: int = 0, ended: Callable[[int], None] = lambda epoch: None) -> None:
    """Run a method to its end, as a trainer of Dassl does. Its models are in evaluation mode then.

    Args:
        session: The run.
        start: Epochs that are done already.
        ended: Called after each epoch with its number, from 0.

    Raises:
        UserError: If the images or settings are such that it cannot go on.
    """
    engine, method = session.engine, session.method
    total = sum(method.steps(method.phase(epoch)) for epoch in range(start, method.epochs))
    with bar(total=total) as shown:
        engine.resumed() if start else engine.begin()
        for epoch in range(start, method.epochs):
            shown.set_description(f"Phase {method.phase(epoch)}, epoch {epoch + 1} of {method.epochs}")
            run_epoch(session, epoch, shown)
            ended(epoch)
    engine.set_mode(training=False)


def run_epoch(session: Session, epoch: int, shown: Any) -> None:
    """Run an epoch.

    Raises:
        UserError: If a loss is not finite.
    """
    engine, runtime = session.engine, session.runtime
    batches = engine.begin_epoch(epoch)
    engine.set_mode(training=True)
    try:
        with step_attention(session.clip_model.visual, runtime.device.type, runtime.dtype):
            for batch in batches:
                engine.step(batch)
                shown.update()
    except FloatingPointError as error:
        raise UserError(f"{error}; lower the learning rate, or look for images or settings that overflow") from error
    engine.end_epoch()
