"""The loop of a run without Dassl."""

from __future__ import annotations

from collections.abc import Callable

from coft.core.errors import UserError
from coft.core.precision import step_attention

from .messages import report_expected_time, report_start
from .run_log import ZERO_SHOT
from .run_progress import show_progress
from .session import Session


def fit(session: Session, start: int = 0, ended: Callable[[int], None] = lambda epoch: None) -> None:
    """Run a method to its end, as a Dassl trainer does. Its models are in evaluation mode afterwards.

    Args:
        session: The run.
        start: Number of epochs that are done already.
        ended: Called after each epoch with its number, from 0.

    Raises:
        UserError: If the images or settings prevent the run from finishing.
    """
    engine, method = session.engine, session.method
    report_start(session)
    with show_progress(session.progress, session.spec.trainer):
        begin(session, start)
        for epoch in range(start, method.epochs):
            run_epoch(session, epoch)
            ended(epoch)
    engine.set_mode(training=False)


def begin(session: Session, start: int) -> None:
    """Begin or resume the method, report the expected time, and record zero-shot CLIP.

    Args:
        session: The run.
        start: Number of epochs that are done already.
    """
    session.engine.resumed() if start else session.engine.begin()
    report_expected_time(session, start)
    if session.log and not start:
        session.log.add(0, ZERO_SHOT)


def run_epoch(session: Session, epoch: int) -> None:
    """Run one epoch.

    Raises:
        UserError: If a loss is not finite.
    """
    engine, runtime, progress = session.engine, session.runtime, session.progress
    progress.begin(epoch)
    batches = engine.begin_epoch(epoch)
    engine.set_mode(training=True)
    try:
        with step_attention(session.clip_model.visual, runtime.device.type, runtime.dtype):
            for batch in batches:
                engine.step(batch)
                progress.step()
    except FloatingPointError as error:
        raise UserError(f"{error}; lower the learning rate, or check for images or settings that overflow") from error
    engine.end_epoch()
