"""The end of a run: its summary, the finished model and the report."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.engine.results import warn_of_report
from coft.report.write import write_report

from .data import reports_predictions
from .finished import write_model
from .reporting import write_summary

log = logging.getLogger(__name__)


def run_without_epochs(trainer: Any) -> None:
    """Run a method that has no epochs: it begins, is saved and evaluated.

    Raises:
        UserError: If it is to go on from an epoch.
    """
    if trainer.cfg.RESUME:
        raise UserError(f"--resume: {type(trainer).__name__} has no epochs, so none to go on from; leave it out")
    trainer.set_model_mode("eval")
    trainer.method.begin()
    if trainer.get_model_names():
        trainer.save_model(0, trainer.output_dir)
    if not trainer.cfg.TEST.NO_TEST:
        trainer.test()
    write_results(trainer)


def write_results(trainer: Any) -> None:
    """Write what is left of a run at its end."""
    if trainer.world.writes:
        write_summary(trainer)
    write_model(trainer)
    report(trainer)


def report(trainer: Any) -> None:
    """Write `report.html`. A run that has come so far does not fail by it."""
    try:
        trainer.keep_evidence()
        if trainer.world.writes:
            write_report(Path(trainer.output_dir))
            say_what_next(trainer)
    except Exception as error:  # all results are on disk already
        if not trainer.world.alone:  # others may wait for this one
            raise
        warn_of_report(error)


def say_what_next(trainer: Any) -> None:
    """Name the commands that go on from a user's own images."""
    if reports_predictions(trainer.dm.dataset):
        run = shlex.quote(str(trainer.output_dir))
        log.info("Next: bash scripts/review.sh %s (mend names), predict.sh (new images), export.sh", run)
