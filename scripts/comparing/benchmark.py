"""The benchmark: units, roles and rows of configs/benchmark.yaml, and its runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from coft.core.errors import UserError
from coft.core.files import replacing
from scripts.launch import CONFIGS

from .benchmark_rows import Derived, Unit
from .benchmark_tables import Bar, write_report
from .evidence import Result, identity, key_of, read_list, read_result, write_list
from .methods import Method, Settings
from .plan import Grid, Run, plan
from .session import do_runs, failed_lines

FILE = CONFIGS / "benchmark.yaml"
SEEDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Benchmark:
    """Units, rows, what was hoped for, and rows that follow from others."""

    units: Sequence[Unit]
    methods: Sequence[Method]
    seeds: Sequence[int]
    bars: Sequence[Bar] = ()
    derived: Sequence[Derived] = ()


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
    bars = [Bar(bar["method"], bar["by"], bar["at_most"]) for bar in content["bars"]]
    derived = [Derived(row["name"], row["from"], row["instead"], row["where"]) for row in content["derived"]]
    chosen = [unit for unit in units if form in ("full", unit.role)]
    return Benchmark(chosen, methods, SEEDS, bars, derived)


def _pairs(settings: Mapping[str, Any] | None) -> Settings:
    return tuple((key, str(value)) for key, value in (settings or {}).items())


def _method(entry: Mapping[str, Any]) -> Method:
    seeded = entry["trainer"] != "ZeroshotCLIP2"
    return Method(entry["name"], entry["trainer"], _pairs(entry.get("settings")), entry.get("shots"), seeded)


def plan_units(benchmark: Benchmark, data: str, output: Path) -> dict[Unit, list[Run]]:
    """Plan the runs of all units. What draws nothing has the first seed, whichever the others have."""
    runs = {}
    drawing, fixed = ([m for m in benchmark.methods if m.seeded == seeded] for seeded in (True, False))
    for unit in benchmark.units:
        grid = Grid([unit.dataset], benchmark.seeds, [unit.backbone], data, output, unit.settings)
        runs[unit] = [*plan(fixed, replace(grid, seeds=SEEDS[:1])), *plan(drawing, grid)]
    return runs


def run_benchmark(args: argparse.Namespace, command: Sequence[str], called: str) -> dict[Run, str]:
    """Run what is missing of a form of the benchmark, and write its tables.

    Returns:
        Errors of runs that failed.
    """
    benchmark = read_benchmark(args.benchmark)
    if args.seeds:
        benchmark = replace(benchmark, seeds=list(dict.fromkeys(args.seeds)))
    grid = Grid([], benchmark.seeds, (None,), str(args.data.resolve()), args.output)
    planned = plan_units(benchmark, grid.data, grid.output)
    known = known_results(planned, args.kept)
    missing = [run for runs in planned.values() for run in runs if run not in known]
    _, failures = do_runs(missing, grid, args, command, list(known))
    results = {**known, **{run: result for run in missing if (result := read_result(run))}}
    if not results:
        print("no run is finished: nothing to tabulate", file=sys.stderr)
        return failures
    if args.kept:
        of = {run: identity(run, unit.settings) for unit, runs in planned.items() for run in runs}
        write_list(args.kept, [(of[run], result) for run, result in results.items()])
    report = write_report(planned, results, called, benchmark.bars, benchmark.derived, failed_lines(failures))
    folder = args.output / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{args.benchmark}.md") as draft:
        draft.write_text(report, encoding="utf-8")
    print(report, f"\n  {folder / args.benchmark}.md", sep="")
    return failures


def known_results(planned: Mapping[Unit, Sequence[Run]], path: Path | None) -> dict[Run, Result]:
    """Results of planned runs that a list has."""
    kept = read_list(path) if path else {}
    found = {run: kept.get(key_of(identity(run, unit.settings))) for unit, runs in planned.items() for run in runs}
    return {run: result for run, result in found.items() if result}
