"""Runs that can take Phase I from a finished one: the same bits, in a part of the time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainers.pair import PairTrainer, phase1_difference

from .plan import Run, trainer_class


def with_phase1_of(run: Run, others: Sequence[Run]) -> tuple[str, ...]:
    """Arguments of a run, with TRAIN.FORK where another one has finished the same Phase I.

    Args:
        run: Not finished.
        others: Runs whose Phase I may be taken.
    """
    folder = next((other.folder for other in others if lends_phase1(other, run)), None)
    return run.arguments if folder is None else (*run.arguments, "TRAIN.FORK", str(folder.resolve()))


def lends_phase1(other: Run, run: Run) -> bool:
    """Whether a run is finished and has the Phase I that another one would make."""
    kind = trainer_class(run.method.trainer)
    if other.folder == run.folder or not issubclass(kind, PairTrainer):
        return False
    same = (other.dataset, other.backbone, other.seed) == (run.dataset, run.backbone, run.seed)
    same = same and phase1_difference(other.config, run.config) is None
    return same and other.summary() is not None and _kept(other.folder)


def _kept(folder: Path) -> bool:
    """Whether the end of Phase I is there beside the end of Phase II."""
    return all(len(list((folder / name).glob("model.pth.tar-*"))) > 1 for name in ("peer_a", "peer_b"))
