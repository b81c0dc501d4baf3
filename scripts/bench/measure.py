"""All settings of a comparison: which fit in memory, how long they take, and what the others would take."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .ways import Setting, difference, tokens_read
from .worker import Worker, WorkerDiedError

log = logging.getLogger(__name__)
PROBES = (4, 16)  # classes of the plain way from which the memory of more is reckoned


@dataclass
class Measured:
    """What was found of a setting.

    Attributes:
        setting: What was measured.
        tokens: That the text tower reads for one prompt of all classes.
        flops: Matmul operations of a step.
        seconds: Of each repeat.
        wall: Likewise, by the clock on the wall.
        peak: Bytes, the most that the process had.
        before: Bytes that it had before the first step.
        rates: Matmul operations a second that the machine had, in each repeat.
        losses: Cross-entropy and dual loss of the first step.
        error: Largest difference of the first step's losses and gradients to `against`'s.
        against: The way that it was compared with.
        extrapolated: Whether time and memory are reckoned from smaller numbers of classes.
    """

    setting: Setting
    tokens: int
    flops: float
    seconds: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    peak: float = 0.0
    before: float = 0.0
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    error: float | None = None
    against: str = ""
    extrapolated: bool = False

    @property
    def median(self) -> float:
        """Median of the repeats' seconds."""
        return statistics.median(self.seconds)

    @property
    def rate_share(self) -> float:
        """Share of the machine's matmul rate: operations by seconds and by what was possible in the same repeat."""
        if self.extrapolated:
            return float("nan")
        each = (self.flops / s / r for s, r in zip(self.seconds, self.rates, strict=True))
        return statistics.median(each)


def clock_of(setting: Setting) -> str:
    """Which clock counts: the processor's where one thread does all, for other programs do not move that."""
    return "processor" if setting.device == "cpu" and setting.threads == 1 else "clock"


def measure(
    settings: Sequence[Setting], repeats: int, tick: Callable[[Setting], None] = lambda _: None
) -> list[Measured]:
    """Measure ways side by side: a step of each by turns, so that what else the machine does meets all of them.

    Args:
        settings: Settings that differ in nothing but their way.
        repeats: Number of timed steps of each.
        tick: Called with its setting after each step.

    Returns:
        What was found of each that did not run out of memory. All are compared with the first.
    """
    workers = [Worker(settings[0], idle=True)]
    found: dict[int, Measured] = {}
    reference: list[torch.Tensor] = []
    lost: set[int] = set()
    try:
        workers += [Worker(setting) for setting in settings]
        for turn in range(repeats + 1):
            rate = workers[0].ask("rate")[clock_of(settings[0])] if turn else 0.0
            for i, (setting, worker) in enumerate(zip(settings, workers[1:], strict=True)):
                if i in lost:
                    continue
                try:
                    if turn == 0:
                        found[i], outcome = _first(setting, worker)
                        reference = reference or outcome
                        found[i].error = difference(outcome, reference)
                        found[i].against = next(iter(found.values())).setting.way
                    else:
                        times = worker.ask("time")
                        found[i].seconds.append(times[clock_of(setting)])
                        found[i].wall.append(times["clock"])
                        found[i].rates.append(rate)
                except WorkerDiedError:
                    log.warning("%s with %d classes ran out of memory", setting.way, setting.classes)
                    lost.add(i)
                    found.pop(i, None)
                tick(setting)
        for i, measured in found.items():
            memory = workers[1 + i].ask("memory")
            measured.peak, measured.before = memory["peak"], memory["before"]
    finally:
        for worker in workers:
            worker.close()
    return list(found.values())


def _first(setting: Setting, worker: Worker) -> tuple[Measured, list[torch.Tensor]]:
    first: dict[str, Any] = worker.ask("first")
    measured = Measured(setting, tokens_read(setting), first["flops"], losses=first["losses"])
    outcome = [torch.tensor(loss) for loss in first["losses"]]
    return measured, outcome + [torch.from_numpy(gradient) for gradient in first["gradients"]]


class Memory:
    """Tells what fits, from the memory of the plain way with few classes: it grows with the tokens that are read.

    Args:
        base: A setting of the plain way; its number of classes does not matter.
        limit: Bytes that may be used.
    """

    def __init__(self, base: Setting, limit: float) -> None:
        self.limit = limit
        probes = [measure([base.but(classes=count)], 0)[0] for count in PROBES]
        self.slope, self.start = line([p.tokens for p in probes], [p.peak for p in probes])

    def fits(self, setting: Setting) -> bool:
        """Whether a setting may be tried. Ours always may: it has a memory budget."""
        return setting.way == "ours" or self.start + self.slope * tokens_read(setting) <= self.limit


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and start of the line that is nearest to some points."""
    slope, start = np.polyfit(np.asarray(x, dtype=float), np.asarray(y, dtype=float), 1)
    return float(slope), float(start)


def extrapolate(setting: Setting, smaller: Sequence[Measured]) -> Measured:
    """What a setting would take that does not fit, from what was measured of the same way.

    Operations and memory are on the line through the others, for they grow with the tokens and do not scatter. Seconds
    do: they are those that an operation took with most classes, times the operations.

    Args:
        setting: The setting that does not fit.
        smaller: Of the same way with fewer classes, two at least.
    """
    tokens, most = tokens_read(setting), max(smaller, key=lambda m: m.tokens)

    def at(values: Sequence[float]) -> float:
        slope, start = line([m.tokens for m in smaller], values)
        return start + slope * tokens

    result = Measured(setting, tokens, at([m.flops for m in smaller]), extrapolated=True)
    result.seconds, result.wall = ([s * result.flops / most.flops for s in each] for each in (most.seconds, most.wall))
    result.peak, result.before = at([m.peak for m in smaller]), at([m.before for m in smaller])
    return result
