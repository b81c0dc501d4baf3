"""Benchmarks: units and rows of configs/benchmark.yaml and configs/paper.yaml, their runs, and the results of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coft.backbones.members import member_names
from coft.core.errors import UserError, did_you_mean
from coft.core.experiment import MOST_CONFIG
from coft.core.schemas import LARGEST, Either, Flag, List, Number, PathText, Record, Text, mapping, whole
from coft.core.untrusted import read_text
from coft.core.yaml_text import parse_yaml
from dassl.engine import TRAINER_REGISTRY
from scripts.launch import CONFIGS
from scripts.paths import called_from

from .list import TIMES, Result, identity, key_of, read_list, stages
from .methods import Method, Settings, pairs_of
from .plan import Grid, Run, plan
from .statistics import Right

FILE, PAPER, PUBLISHED = (CONFIGS / f"{name}.yaml" for name in ("benchmark", "paper", "published"))
SEEDS = (1, 2, 3, 4, 5)
VALUE = Either((Text(), Flag(), Number(-LARGEST)))
SETTINGS = mapping(Either((*VALUE.forms, List(VALUE, 0, 100))))
ROW = Record(
    {"name": Text(200, least=1), "trainer": Text(choices=tuple(TRAINER_REGISTRY.registered_names()))},
    {"settings": SETTINGS, "shots": whole(1), "version": whole(1)},
)
COUNTS = {"classes": whole(2), "train": whole(1), "val": whole(0), "test": whole(1)}
SCHEMA = Record(  # schema of configs/paper.yaml, and of a file given instead
    {
        "sets": mapping(Record({"title": Text(200), **COUNTS}), 1000),
        "methods": List(
            Either((Text(200), ROW)), 1, 1000, key=lambda row: row if isinstance(row, str) else row["name"]
        ),
        "backbones": List(PathText(), 1, 100, key=str),
        "seeds": List(whole(0), 1, 1000, key=int),
    },
    {"settings": SETTINGS},
)
NO_SEED = 0  # seed of a deterministic method
Entry = Mapping[str, Any]  # an entry of the file
BySeed = dict[int, Any]  # by seed: whether a method is right on each test image, shape (images,)


@dataclass(frozen=True)
class Facts:
    """Size of a data set in CoOp's split.

    Attributes:
        title: Title in tables.
        classes: Number of classes.
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images.
    """

    title: str
    classes: int
    train: int
    val: int
    test: int


@dataclass(frozen=True)
class Unit:
    """A checkpoint and a data set.

    Attributes:
        backbone: Name of the checkpoint.
        dataset: Name of the data set's config.
        role: development, confirmation, control or spent.
        settings: Keys and values of settings for its runs.
    """

    backbone: str
    dataset: str
    role: str
    settings: Settings = ()

    @property
    def title(self) -> str:
        """Short title for tables."""
        settings = dict(self.settings)
        count, pool, ratio = (settings.get(f"DATASET.{key}", "1") for key in ("NUM_UNLABELED", "POOL", "RATIO"))
        parts = [self.dataset, self.backbone, *([f"{count} images"] if int(count) > 2000 else [])]
        parts += [f"pool {pool}"] if pool != "1" else []
        parts += [f"1:{float(ratio):g}"] if ratio != "1" else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Published:
    """A row of published figures.

    Attributes:
        name: Name of the method, as its authors call it.
        row: Name of the corresponding row of ours.
        backbone: Name of the backbone.
        source: Reference to the publication.
        accuracy: Accuracy in percent, by data set.
        check: Whether our results should agree, because ours is not a reconstruction.
    """

    name: str
    row: str
    backbone: str
    source: str
    accuracy: Mapping[str, float]
    check: bool = False


@dataclass(frozen=True)
class Benchmark:
    """Units and rows of a benchmark.

    Attributes:
        units: Pairs of checkpoint and data set.
        methods: Rows of the tables.
        seeds: Seeds of the runs.
        bars: Targets, the entries `bars` of configs/benchmark.yaml.
        sets: Data sets of a table like the paper's, by name; empty for other benchmarks.
        published: Published figures for that table.
    """

    units: Sequence[Unit]
    methods: Sequence[Method]
    seeds: Sequence[int]
    bars: Sequence[Entry] = ()
    sets: Mapping[str, Facts] = field(default_factory=dict)
    published: Sequence[Published] = ()


def read_benchmark(form: str) -> Benchmark:
    """Read the benchmark.

    Args:
        form: "full"; "small"; a role, for the units with that role only; "paper"; or the path of a file in the format
            of configs/paper.yaml.

    Raises:
        UserError: If there is no such form.
    """
    content = parse_yaml(read_text(FILE))
    units = [Unit(u["backbone"], u["dataset"], u["role"], pairs_of(u.get("settings", {}))) for u in content["units"]]
    methods = [_method(row) for row in content["methods"]]
    if form == "paper" or form.endswith(".yaml"):
        return _read_declaration(PAPER if form == "paper" else called_from(form), methods)
    if form == "small":
        return _small_form(content["small"], units, methods)
    roles = list(dict.fromkeys(unit.role for unit in units))
    if form not in ("full", *roles):
        raise UserError(f"--benchmark {form}: expected paper, full, small, {', '.join(roles[:-1])} or {roles[-1]}")
    chosen = [unit for unit in units if form in ("full", unit.role)]
    return Benchmark(chosen, methods, SEEDS, content["bars"])


def _method(row: Entry) -> Method:
    settings = pairs_of(row.get("settings", {}))
    return Method(row["name"], row["trainer"], settings, row.get("shots"), version=row.get("version", 1))


def _read_declaration(path: Path, rows: Sequence[Method]) -> Benchmark:
    """Read a benchmark of all data sets with all backbones of a file.

    Args:
        path: Path of the file.
        rows: Rows that it may refer to by name.

    Raises:
        UserError: If the file cannot be read, or has another format than configs/paper.yaml.
    """
    by_name = {method.name: method for method in rows}
    try:
        content = parse_yaml(read_text(path, MOST_CONFIG))
        SCHEMA.check(content)
        if unknown := [row for row in content["methods"] if isinstance(row, str) and row not in by_name]:
            raise ValueError(f"methods has {unknown[0]!r}; {did_you_mean(unknown[0], list(by_name))}")
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--benchmark {path}: not as configs/paper.yaml is ({reason}); mend it") from error
    sets = {name: Facts(**facts) for name, facts in content["sets"].items()}
    methods = [by_name[row] if isinstance(row, str) else _method(row) for row in content["methods"]]
    settings = pairs_of(content.get("settings", {}))
    units = [Unit(backbone, name, "paper", settings) for backbone in content["backbones"] for name in sets]
    published = [Published(**entry) for entry in parse_yaml(read_text(PUBLISHED))]
    return Benchmark(units, methods, content["seeds"], sets=sets, published=published)


def restrict(benchmark: Benchmark, sets: Sequence[str], backbones: Sequence[str], seeds: Sequence[int]) -> Benchmark:
    """Restrict a benchmark to some data sets, backbones and seeds; an empty sequence stands for all of them.

    Backbones that the benchmark does not have are run on all of its data sets.

    Raises:
        UserError: If it has no such data set, or its data sets and backbones cannot be chosen.
    """
    if (sets or backbones) and not benchmark.sets:
        raise UserError(f"{'--sets' if sets else '--backbone'} is for --benchmark paper; leave it out")
    for name in sets:
        if name not in benchmark.sets:
            raise UserError(f"--sets: {name!r} is none of its data sets; {did_you_mean(name, list(benchmark.sets))}")
    units = benchmark.units
    if backbones:
        of_one = [unit for unit in units if unit.backbone == units[0].backbone]
        units = [replace(unit, backbone=name) for name in dict.fromkeys(backbones) for unit in of_one]
    units = [unit for unit in units if not sets or unit.dataset in sets]
    return replace(benchmark, units=units, seeds=list(dict.fromkeys(seeds)) or benchmark.seeds)


def _small_form(small: Mapping[str, Any], units: Sequence[Unit], methods: Sequence[Method]) -> Benchmark:
    """Build the small form: the first unit of each name, with additional settings."""
    first = {f"{unit.backbone} {unit.dataset}": unit for unit in reversed(units)}
    chosen = [
        replace(unit, settings=pairs_of({**dict(unit.settings), **small["settings"]}))
        for unit in units
        if unit in [first[name] for name in small["units"]]
    ]
    return Benchmark(chosen, [method for method in methods if method.name in small["methods"]], small["seeds"])


def supports_backbone(method: Method, backbone: str) -> bool:
    """Return whether a row applies to a backbone: one of two checkpoints needs a trainer that takes two."""
    return len(member_names(backbone)) == 1 or TRAINER_REGISTRY.get(method.trainer).spec.two_checkpoints


def plan_units(benchmark: Benchmark, data: str, output: Path) -> dict[Unit, list[Run]]:
    """Plan the runs of all units. Deterministic methods are run with the first of `SEEDS`, whatever the others have."""
    runs = {}
    for unit in benchmark.units:
        grid = Grid([unit.dataset], benchmark.seeds, [unit.backbone], data, output, unit.settings)
        methods = [m for m in benchmark.methods if supports_backbone(m, unit.backbone)]
        unseeded, seeded = ([m for m in methods if m.seeded == seeded] for seeded in (False, True))
        runs[unit] = [*plan(unseeded, replace(grid, seeds=SEEDS[:1])), *plan(seeded, grid)]
    return runs


def listed_results(planned: Mapping[Unit, Sequence[Run]], path: Path | None) -> dict[Run, Result]:
    """Return the results of planned runs that a list of results has.

    Raises:
        UserError: If results of a unit have different numbers of test images.
    """
    listed, results = read_list(path) if path else {}, dict[Run, Result]()
    for unit, runs in planned.items():
        of_unit = {run: listed[key] for run in runs if (key := key_of(identity(run, unit.settings))) in listed}
        check_test_images(unit, of_unit.values(), f"{path}: remove the lines of one kind")
        results |= of_unit
    return results


def check_test_images(unit: Unit, results: Iterable[Result], remedy: str) -> None:
    """Check that all results of a unit have the same number of test images.

    Raises:
        UserError: If they differ; its message ends in `remedy`.
    """
    counts = sorted({len(result.right["end"]) for result in results})
    if len(counts) > 1:
        raise UserError(f"{unit.title} has results of {counts[0]} and of {counts[-1]} test images; {remedy}")


# ---------------------------------------------------------------- rows


@dataclass(frozen=True)
class Rows:
    """Results of the finished runs of a unit.

    Attributes:
        methods: All rows in the order of the benchmark, finished or not.
        right: Whether each test image is predicted correctly, by method and seed.
        scores: AUROCs of CoFT's first and last labels, by time and score; means over seeds.
        shares: Percent of CoFT's labels that are right, and mean p_clean, by time; means over seeds.
        calibration: By method: "accuracy" on test images, and the entries of `Result.calibration`; means over seeds.
    """

    methods: Sequence[str]
    right: Mapping[str, BySeed]
    scores: Mapping[tuple[str, str], float]
    shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    calibration: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def rows_of(planned: Mapping[Unit, Sequence[Run]], results: Mapping[Run, Result]) -> dict[Unit, Rows]:
    """Return the rows of units with a finished run."""
    for unit, runs in planned.items():
        present = [results[run] for run in runs if run in results]
        check_test_images(unit, present, "remove the folders or lines of one kind")
    rows = {unit: read_rows(runs, results) for unit, runs in planned.items()}
    return {unit: of_unit for unit, of_unit in rows.items() if of_unit.right}


def read_rows(runs: Sequence[Run], results: Mapping[Run, Result]) -> Rows:
    """Group the results of a unit by method. Methods without a finished run are left out."""
    right: dict[str, BySeed] = {}
    calibrated: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        if run not in results:
            continue
        result, seed = results[run], run.seed if run.method.seeded else NO_SEED
        for stage, title in stages(run):
            if stage in result.right:
                right.setdefault(title, {})[seed] = result.right[stage]
        if result.calibration:
            accuracy = 100 * float(result.right["end"].mean())
            calibrated.setdefault(run.method.name, []).append({"accuracy": accuracy, **result.calibration})
    of_coft = [results[run] for run in runs if run in results and run.method.name == "CoFT" and results[run].scores]
    complete = [result for result in of_coft if {*TIMES} <= result.believed.keys() & result.pool.keys()]
    pool, believed = (_means([getattr(result, name) for result in complete]) for name in ("pool", "believed"))
    shares = {time: (pool[time], believed[time]) for time in (TIMES if complete else ())}
    calibration = {name: _means(numbers) for name, numbers in calibrated.items()}
    methods = dict.fromkeys(title for run in runs for _, title in stages(run))
    return Rows(list(methods), right, _means([result.scores for result in of_coft]), shares, calibration)


def _means(numbers: Sequence[Mapping[Any, float]]) -> dict[Any, float]:
    """Average the numbers of several results, by key; a missing number does not count."""
    return pd.DataFrame(numbers).mean().to_dict()


def paired(*methods: BySeed) -> tuple[Right, ...] | None:
    """Pair methods by their common seeds; a deterministic method is paired with all seeds.

    Returns:
        For each method whether it is right, shape (seeds, images); None if there is no common seed.
    """
    drawing = [right.keys() for right in methods if NO_SEED not in right]
    seeds = sorted(set.intersection(*map(set, drawing))) if drawing else [NO_SEED]
    if not seeds:
        return None
    return tuple(np.stack([right[NO_SEED if NO_SEED in right else s] for s in seeds]) for right in methods)
