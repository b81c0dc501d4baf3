"""Messages of a run to the user: its inputs, the expected time, and the outcome."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from coft.backbones.frozen_bank import through_stages
from coft.core.progress import user_log
from coft.core.sanitize import some_of
from coft.core.untrusted import read_table
from coft.core.words import about, counted
from coft.labelling.calibration import estimated_range
from coft.report.formatting import duration

from .session import Session

FORWARDS_PER_STEP = 2  # time of a step per image, in forward passes: frozen stages make the backward pass cheaper
TIMED = 2  # forward passes that are timed; the fastest one counts
FORWARDS_PER_STEP_CACHED = 6  # the same with cached stages, in passes through the others; includes the backward pass
REPORT, DOUBTFUL = "report.html", "doubtful_names.csv"


def report_start(session: Session) -> None:
    """Report method, data, backbone, device and output folder of a run."""
    images, classes = session.task.images, session.task.classes.names
    of_what = [counted(len(images), "unlabeled image")] if images is not None else []
    of_what.append(counted(len(classes), "class", "classes"))
    device = "a GPU" if session.device.type == "cuda" else f"{counted(torch.get_num_threads(), 'thread')} of the CPU"
    backbone = session.cfg.MODEL.BACKBONE.NAME
    method = session.spec.trainer
    title = "your images" if session.task.title == "Folder" else session.task.title
    user_log.info("%s on %s: %s; CLIP %s on %s", method, title, ", ".join(of_what), backbone, device)
    if session.folder is not None:
        user_log.info("Results go to %s, and all details to log.txt there", session.folder)


def report_expected_time(session: Session, start: int = 0) -> None:
    """Report about how long the run will take. Called once it is decided whether anything is trained.

    Args:
        session: The run.
        start: Number of epochs that are done already.
    """
    if not session.method.trains:
        return
    if 0 < session.method.epochs <= start:
        user_log.info("All %d epochs are done already; nothing is trained again", start)
    elif session.spec.two_peers and not start:
        time_needed = about(estimated_seconds(session))
        user_log.info("This takes about %s. Press Ctrl-C to stop; the same command resumes it", time_needed)
    elif start:
        user_log.info("Resumes after epoch %d of %d", start, session.method.epochs)


def estimated_seconds(session: Session) -> float:
    """Estimate the seconds that a run will take: its number of forward passes times the measured time of one.

    A training step on an image counts as several forward passes, and a second view in the last phase as one more. If
    outputs of the frozen stages are cached, an image passes these stages once per view that is labelled, and once per
    view and epoch of the last phase.
    """
    engine, method, images = session.engine, session.method, session.task.images
    assert images is not None
    models, views = max(1, len(method.models)), getattr(session.settings, "label_views", 1)
    epochs = session.progress.epochs
    steps, last = sum(epoch.steps for epoch in epochs), [epoch for epoch in epochs if epoch.phase == epochs[-1].phase]
    more = len(method.views(epochs[-1].phase)) - 1
    labellings = 1 + sum(method.is_due(epoch) for epoch in range(method.epochs))
    of_step = FORWARDS_PER_STEP if engine.bank is None else FORWARDS_PER_STEP_CACHED
    size = min(images.batch_size, len(images))
    passes = models * (of_step * steps * size + labellings * views * len(images))
    passes += models * more * sum(epoch.steps for epoch in last) * size
    batch = torch.zeros(size, 3, *session.cfg.INPUT.SIZE, device=session.device)
    with torch.no_grad(), session.runtime.autocast():
        whole = _seconds_of(session, batch)
        if engine.bank is None:
            return passes * whole / size
        rest = _seconds_of(session, through_stages(engine.clip.visual, batch))
    anew = views + (1 + more) * len(last)
    return (passes * rest + anew * len(images) * (whole - rest)) / size


def _seconds_of(session: Session, batch: torch.Tensor) -> float:
    """Time a forward pass of CLIP. The minimum of a few counts: the first allocates memory, other programs disturb."""
    seconds = []
    for _ in range(TIMED):
        start = time.perf_counter()
        session.engine.clip.encode(batch)
        if session.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def report_done(seconds: float, counts: str = "", untrained: bool = False) -> None:
    """Report the end of a run.

    Args:
        seconds: Duration of the run.
        counts: Number of images per class, in words.
        untrained: Whether nothing was trained.
    """
    user_log.info("Done in %s", duration(seconds))
    if untrained:
        user_log.info("Nothing was trained: these are the labels of zero-shot CLIP")
    if counts:
        user_log.info("Images by class: %s", counts)


def report_names(folder: Path | None) -> bool:
    """Report the class names of a run that may be wrong, and return whether there are any.

    Args:
        folder: Output folder; None if no files are written.
    """
    if folder is None or not (folder / DOUBTFUL).is_file():
        return False
    table = read_table(folder / DOUBTFUL)
    names = [f"{name} ({reasons})" for name, reasons in zip(table["class"], table["reasons"], strict=True)]
    user_log.info("Names that may be wrong: %s", some_of(names))
    return True


def report_estimate(confidence: float, calibrated: bool, doubtful: bool) -> None:
    """Report the mean confidence: as an estimate of the accuracy if the model is calibrated.

    Args:
        confidence: Mean confidence of the predicted labels, in [0, 1].
        calibrated: Whether the model is calibrated.
        doubtful: Whether class names may be wrong.
    """
    if not calibrated:
        user_log.info("Mean confidence: %.0f %%; it is not calibrated, so the accuracy is unknown", 100 * confidence)
        return
    line = "Estimated accuracy: %.0f %%, between %.0f and %.0f, if no name is wrong or missing"
    if doubtful:
        line = "Accuracy if these names are right: %.0f %%, between %.0f and %.0f"
    user_log.info(line, *(100 * share for share in (confidence, *estimated_range(confidence))))


def report_accuracies(accuracies: Mapping[str, float], images: int) -> None:
    """Report test accuracies.

    Args:
        accuracies: Accuracies in percent, by the words that name them in the message.
        images: Number of test images.
    """
    shares = ", ".join(f"{value:.1f} % {name}" for name, value in accuracies.items())
    user_log.info("Accuracy on %s: %s", counted(images, "test image"), shares)


def report_next(folder: Path | None, following: Sequence[str]) -> None:
    """Report the place of the run's report, and suggested next commands.

    Args:
        folder: Output folder; None if no files are written.
        following: The commands.
    """
    if folder is not None and (folder / REPORT).is_file():
        user_log.info("  report: %s", folder / REPORT)
    for command in following:
        user_log.info("  next:   %s", command)
