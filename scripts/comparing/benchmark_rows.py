"""Rows of the benchmark: what the finished runs of a unit have found, by method and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .bootstrap import Right
from .evidence import Result, stages
from .methods import Settings
from .plan import Run

ANY = 0  # seed of a method that draws nothing
BySeed = dict[int, Any]  # what a method has right with each seed, shape (images,)


@dataclass(frozen=True)
class Unit:
    """A checkpoint and a data set.

    Attributes:
        backbone: Name of the checkpoint.
        dataset: Name of the data set's config.
        role: development, confirmation, control or spent.
        settings: Keys and values of its runs.
    """

    backbone: str
    dataset: str
    role: str
    settings: Settings = ()

    @property
    def title(self) -> str:
        """In a few words."""
        count = dict(self.settings).get("DATASET.NUM_UNLABELED")
        return f"{self.dataset}, {self.backbone}" + (f", {count} images" if count and int(count) > 2000 else "")


@dataclass(frozen=True)
class Derived:
    """A row that follows from others: a method's, and on some data sets another's in its place.

    Attributes:
        name: Of the row.
        source: The method.
        instead: The other one.
        datasets: Where it stands in.
    """

    name: str
    source: str
    instead: str
    datasets: Sequence[str]


@dataclass(frozen=True)
class Found:
    """What the finished runs of a unit have found.

    Attributes:
        methods: All rows in the order of the benchmark, finished or not.
        right: By method.
        seconds: By method, of each seed.
        scores: AUROCs of CoFT's first and last labels, by score; means over seeds.
    """

    methods: Sequence[str]
    right: Mapping[str, BySeed]
    seconds: Mapping[str, Mapping[int, float]]
    scores: Mapping[tuple[str, str], float]


def read_unit(runs: Sequence[Run], results: Mapping[Run, Result]) -> Found:
    """Sort the results of a unit by method. Methods without a finished run lack."""
    methods = dict.fromkeys(title for run in runs for _, title in stages(run))
    right: dict[str, BySeed] = {}
    seconds: dict[str, dict[int, float]] = {}
    scores: list[Mapping[tuple[str, str], float]] = []
    for run in runs:
        if run not in results:
            continue
        result, seed = results[run], run.seed if run.method.seeded else ANY
        for stage, title in stages(run):
            if stage in result.right:
                right.setdefault(title, {})[seed] = result.right[stage]
        seconds.setdefault(run.method.name, {})[seed] = result.seconds
        if run.method.name == "CoFT" and result.scores:
            scores.append(result.scores)
    places = dict.fromkeys(place for own in scores for place in own)
    means = {place: float(np.mean([own[place] for own in scores])) for place in places}
    return Found(list(methods), right, seconds, means)


def with_derived(unit: Unit, found: Found, derived: Sequence[Derived]) -> Found:
    """What a unit's runs have found, and the rows that follow, each after its source."""
    for row in derived:
        place = list(found.methods).index(row.source) + 1 if row.source in found.methods else len(found.methods)
        own = found.right.get(row.source, {})
        if unit.dataset in row.datasets:
            other = found.right.get(row.instead, {})
            own = {seed: other[ANY if ANY in other else seed] for seed in own if ANY in other or seed in other}
        names = [*found.methods[:place], row.name, *found.methods[place:]]
        found = replace(found, methods=names, right={**found.right, **({row.name: own} if own else {})})
    return found


def paired(*methods: BySeed) -> tuple[Right, ...] | None:
    """What methods have right with the seeds that they share; one that draws nothing goes with all."""
    drawing = [own.keys() for own in methods if ANY not in own]
    seeds = sorted(set.intersection(*map(set, drawing))) if drawing else [ANY]
    return tuple(np.stack([own[ANY if ANY in own else s] for s in seeds]) for own in methods) if seeds else None
