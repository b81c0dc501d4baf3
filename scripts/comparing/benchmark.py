"""The benchmark: units, roles and rows of configs/benchmark.yaml, and intervals by paired bootstrap."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from tabulate import tabulate

from coft.runtime.errors import UserError
from coft.runtime.files import replacing
from scripts.launch import CONFIGS

from .bootstrap import Right, errors, interval, resampled
from .methods import Method, Settings
from .plan import Grid, Run, plan
from .session import do_runs, failed_lines

FILE = CONFIGS / "benchmark.yaml"
COUNTED = ("development", "confirmation")  # roles that means are over
REFERENCES = ("UPL", "UPL x 2, CoFT's first labels", "self-training, CoFT's labels", "CoFT")  # of ratios of errors


BySeed = dict[int, Any]  # what a method has right with each seed, shape (images,)
Found = tuple[dict[str, BySeed], dict[str, float]]  # by method; and its mean seconds


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
class Benchmark:
    """Units and rows."""

    units: Sequence[Unit]
    methods: Sequence[Method]
    seeds: Sequence[int]


def read_benchmark(form: str, path: Path = FILE) -> Benchmark:
    """Read the benchmark.

    Args:
        form: "full", "small", or a role, for its units alone.
        path: The file.

    Raises:
        UserError: If there is no such form.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    units = [Unit(u["backbone"], u["dataset"], u["role"], _pairs(u.get("settings"))) for u in content["units"]]
    methods = [_method(entry) for entry in content["methods"]]
    if form == "small":
        small = content["small"]
        named = {f"{unit.backbone} {unit.dataset}": unit for unit in reversed(units)}  # the first of each name
        chosen = [unit for name, unit in reversed(named.items()) if name in small["units"]]
        settings = _pairs(small["settings"])
        chosen = [replace(unit, settings=tuple({**dict(unit.settings), **dict(settings)}.items())) for unit in chosen]
        return Benchmark(chosen, [m for m in methods if m.name in small["methods"]], small["seeds"])
    roles = list(dict.fromkeys(unit.role for unit in units))
    if form not in ("full", *roles):
        raise UserError(f"--benchmark {form}: expected full, small, {', '.join(roles[:-1])} or {roles[-1]}")
    return Benchmark([unit for unit in units if form in ("full", unit.role)], methods, (1, 2, 3, 4, 5))


def _pairs(settings: Mapping[str, Any] | None) -> Settings:
    return tuple((key, str(value)) for key, value in (settings or {}).items())


def _method(entry: Mapping[str, Any]) -> Method:
    seeded = entry["trainer"] != "ZeroshotCLIP2"
    return Method(entry["name"], entry["trainer"], _pairs(entry.get("settings")), entry.get("shots"), seeded)


def plan_units(benchmark: Benchmark, data: str, output: Path) -> dict[Unit, list[Run]]:
    """Plan the runs of all units."""
    runs = {}
    for unit in benchmark.units:
        grid = Grid([unit.dataset], benchmark.seeds, [unit.backbone], data, output, unit.settings)
        runs[unit] = plan(benchmark.methods, grid)
    return runs


def run_benchmark(args: argparse.Namespace, command: Sequence[str], called: str) -> dict[Run, str]:
    """Run what is missing of a form of the benchmark, and write its tables.

    Returns:
        Errors of runs that failed.
    """
    benchmark = read_benchmark(args.benchmark)
    if args.seeds_given:
        benchmark = replace(benchmark, seeds=args.seeds)
    grid = Grid([], benchmark.seeds, (None,), str(args.data.resolve()), args.output)
    planned = plan_units(benchmark, grid.data, grid.output)
    _, failures = do_runs([run for runs in planned.values() for run in runs], grid, args, command)
    if not any(run.summary() for runs in planned.values() for run in runs):
        print("no run is finished: nothing to tabulate", file=sys.stderr)
        return failures
    report = write_report(planned, called, failed_lines(failures))
    folder = args.output / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{args.benchmark}.md") as draft:
        draft.write_text(report, encoding="utf-8")
    print(report, f"\n  {folder / args.benchmark}.md", sep="")
    return failures


# ---------------------------------------------------------------- what was right


def right_by_method(runs: Sequence[Run]) -> Found:
    """What each method has right, and the seconds of its runs, on one unit. Methods without a finished run lack.

    Returns:
        By name and seed, shape (images,), and mean seconds by name.
    """
    found: dict[str, dict[int, Any]] = {}
    seconds: dict[str, list[float]] = {}
    for run in runs:
        summary, path = run.summary(), run.folder / "test_predictions.csv"
        if not summary or not path.is_file():
            continue
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for stage in ("phase1", "end"):
            if stage in table:
                name = run.method.name if stage == "end" else f"{run.method.name}, Phase I"
                found.setdefault(name, {})[run.seed] = (table[stage] == table["class"]).to_numpy()
                seconds.setdefault(name, []).append(summary["seconds"] if stage == "end" else np.nan)
    return found, {name: float(np.mean(own)) for name, own in seconds.items()}


def paired(*methods: BySeed) -> tuple[Right, ...] | None:
    """What methods have right with the seeds that they share; one with a single seed, as zero-shot, goes with all."""
    several = [set(own) for own in methods if len(own) > 1]
    seeds = sorted(set.intersection(*several)) if several else [0]
    rows = [
        np.stack([own[s] for s in seeds]) if len(own) > 1 else np.stack(list(own.values())) for own in methods if seeds
    ]
    return tuple(rows) or None


def write_report(planned: Mapping[Unit, Sequence[Run]], called: str, notes: Sequence[str] = ()) -> str:
    """All tables, as Markdown."""
    found = {unit: known for unit, runs in planned.items() if (known := right_by_method(runs))[0]}
    parts = [f"`{called}`", accuracy_table(found), seconds_table(found)]
    parts += [table for reference in REFERENCES if (table := ratio_table(found, reference))]
    return "\n\n".join([*parts, *(f"- {note}" for note in notes)]) + "\n"


def accuracy_table(found: Mapping[Unit, Found]) -> str:
    """Accuracies with intervals: a row a method, a column a unit."""
    names = list(dict.fromkeys(name for right, _ in found.values() for name in right))
    rows = [[name, *(_accuracy(right.get(name)) for right, _ in found.values())] for name in names]
    heads = ["accuracy, %", *(f"{unit.title} ({unit.role})" for unit in found)]
    return _table(rows, heads)


def _accuracy(right: BySeed | None) -> str:
    if right is None:
        return "-"
    rows = np.stack(list(right.values()))
    low, high = interval(100 * (1 - resampled([(rows,)])[:, 0]))
    return f"{100 * rows.mean():.1f} [{low:.1f}, {high:.1f}]"


def seconds_table(found: Mapping[Unit, Found]) -> str:
    """Seconds of a run: a row a method, a column a unit."""
    names = list(dict.fromkeys(n for _, seconds in found.values() for n, s in seconds.items() if not np.isnan(s)))
    rows = [[n, *(f"{s[n]:.0f}" if n in s else "-" for _, s in found.values())] for n in names]
    return _table(rows, ["seconds", *(unit.title for unit in found)])


def ratio_table(found: Mapping[Unit, Found], reference: str) -> str:
    """Errors of each method divided by those of a reference, by unit and over those that count; "" without any."""
    units = {unit: right for unit, (right, _) in found.items() if reference in right}
    names = list(dict.fromkeys(name for right in units.values() for name in right if name != reference))
    rows = []
    for name in names:
        both = {unit: paired(right[name], right[reference]) for unit, right in units.items() if name in right}
        having = {unit: pair for unit, pair in both.items() if pair}
        cells = [_ratio([having[unit]]) if unit in having else "-" for unit in units]
        counted = [pair for unit, pair in having.items() if unit.role in COUNTED]
        rows.append([name, *cells, _ratio(counted) if len(counted) > 1 else "-"])
    heads = [
        f"errors / those of {reference}",
        *(unit.title for unit in units),
        "development and confirmation",
    ]
    return _table(rows, heads) if rows else ""


def _ratio(pairs: Sequence[tuple[Right, ...]]) -> str:
    mean, drawn = errors(pairs), resampled(pairs)
    if not mean[1]:
        return "-"
    low, high = interval(drawn[:, 0] / np.maximum(drawn[:, 1], 1e-9))
    return f"{mean[0] / mean[1]:.2f} [{low:.2f}, {high:.2f}]"


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    align = ["left", *["right"] * (len(heads) - 1)]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=align if rows else None)
