"""The commands behind compare.sh, ablate.sh, table.sh and results.sh, which run trainers and tabulate results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coft.core.errors import Parser, UserError, did_you_mean
from coft.core.files import replacing
from coft.core.untrusted import read_text
from scripts.paths import called_from, display_path

from .benchmark_runs import run_benchmark
from .methods import ABLATIONS, FULL, Method, choose_ablations, choose_methods, load_ablations
from .options import (
    ablate_parser,
    command_line,
    compare_parser,
    failed_lines,
    make_folder,
    make_grid,
    numbered_folder,
    report_failures,
)
from .plan import plan, plan_ablations
from .results import read_places, rows_of_runs
from .run import TRAIN, do_runs
from .statistics import overall_changes, paired_changes, summarise_changes
from .tables import NOTHING, PAGE, Tables, comparison_tables, fill_page, titled, write_tables


def print_files(files: Sequence[Path]) -> None:
    """Print the paths of files that were written."""
    print(*(f"  {display_path(file)}" for file in files), sep="\n")


# ---------------------------------------------------------------- compare.sh, table.sh


ONLY_BENCHMARK = ("sets", "part", "dry_run", "kept", "again")
EXCLUDED = {  # arguments that each form of compare.sh does not take, by the argument that chooses it
    "benchmark": ("trainers", "shots", "name", "folders", "words"),
    "folders": ("words", "seeds", "shots", "backbone", "data", "jobs", "gpus", "no_run", *ONLY_BENCHMARK),
    "words": ONLY_BENCHMARK,
}
REASONS = {
    "benchmark": "{}: --benchmark {benchmark} has that itself; leave it out",
    "folders": "--from tabulates what is there, and runs nothing; leave out {}",
    "words": "{} is for --benchmark; add --benchmark FORM, or leave it out",
}


def check_form(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Check that the arguments go with the form of the command: a benchmark, a table of what is there, or data sets.

    Raises:
        UserError: If one does not; the message names it.
    """
    form = "benchmark" if args.benchmark else "folders" if args.folders else "words"
    for name in EXCLUDED[form]:
        if (value := getattr(args, name)) not in (parser.get_default(name), []):
            flag = value[0] if name == "words" else "--from" if name == "folders" else f"--{name.replace('_', '-')}"
            raise UserError(REASONS[form].format(flag, **vars(args)))
    if args.again and not args.kept:
        raise UserError("--again runs what a list of results has; add --kept FILE, or leave it out")


def compare(argv: Sequence[str], command: Sequence[str] = TRAIN) -> int:
    """Run trainers on data sets and tabulate them.

    Args:
        argv: Arguments of the script.
        command: Command line that runs a trainer, to which its arguments are appended.

    Returns:
        0, or 1 if a run failed.
    """
    parser = compare_parser()
    args, called = parser.parse_intermixed_args(argv), command_line("compare", argv)
    check_form(parser, args)
    if args.benchmark:
        return run_benchmark(args, command, called)
    if args.folders:
        return tabulate_results(args, called)
    grid = make_grid(args)
    methods = choose_methods(args.trainers, args.shots)
    if args.shots != parser.get_default("shots") and not any(method.shots for method in methods):
        raise UserError("--shots: none of these trainers learns from labelled images; leave it out")
    runs = plan(methods, grid)
    failures, rows = do_runs(runs, args, command), rows_of_runs(runs)
    if rows.empty:
        print(NOTHING, file=sys.stderr)
    else:
        folder = numbered_folder(make_folder(args, grid, "comparisons"), args, called)
        publish(folder, called, comparison_tables(rows), rows, failed_lines(failures))
    return report_failures(failures)


def tabulate_results(args: argparse.Namespace, called: str) -> int:
    """Tabulate existing runs, below folders or in lists of results; with --trainers only runs of these.

    Raises:
        UserError: If there is no result of a trainer.
    """
    places = [called_from(folder) for folder in args.folders]
    rows = read_places(places)
    trainers = list(rows["trainer"].unique())
    for name in args.trainers:
        if name not in trainers:
            raise UserError(f"--trainers: no result of {name!r}; {did_you_mean(name, trainers)}")
    rows = rows[rows["trainer"].isin(args.trainers or trainers)]
    stems = [place.stem if place.is_file() else place.resolve().name for place in places]
    folder = args.output / "comparisons" / (args.name or "+".join(stems))
    publish(numbered_folder(folder, args, called), called, comparison_tables(rows), rows)
    return 0


def publish(folder: Path, called: str, tables: Tables, *details: Any) -> None:
    """Print tables and write all files; see `write_tables` for the arguments."""
    files = write_tables(folder, called, tables, *details)
    print(titled(tables))
    print_files(files)


def table(argv: Sequence[str]) -> int:
    """Print the tables of folders of runs, without writing files. Returns the exit code."""
    parser = Parser(
        prog="scripts/table.sh", description="Tabulate all finished runs: means over seeds with 95 % intervals."
    )
    parser.add_argument("places", nargs="*", metavar="FOLDER", help="folder of runs or a runs.csv; default: output")
    places = [called_from(folder) for folder in parser.parse_args(argv).places] or [Path("output")]
    print(titled(comparison_tables(read_places(places))))
    return 0


# ---------------------------------------------------------------- ablate.sh


def ablate(argv: Sequence[str], command: Sequence[str] = TRAIN) -> int:
    """Change the switches of a method one by one, and tabulate the effect of each change.

    Arguments and return value are those of `compare`.
    """
    args, called = ablate_parser().parse_intermixed_args(argv), command_line("ablate", argv)
    grid = make_grid(args)
    ablations = choose_ablations(load_ablations(ABLATIONS[args.trainer]), args.groups, args.row)
    runs, notes = plan_ablations(ablations, grid)
    skipped = [f"skipped: {note}" for note in notes]
    print(*(f"{line}\n" for line in skipped), sep="", end="", file=sys.stderr)
    failures, rows = do_runs(runs, args, command), rows_of_runs(runs)
    if failures and (rows.empty or FULL not in rows["variant"].values):
        return report_failures(failures)  # explains why there is nothing to compare with
    if rows.empty:
        print(NOTHING, file=sys.stderr)
    else:
        folder = numbered_folder(make_folder(args, grid, "ablations") / args.trainer, args, called)
        publish_ablations(folder, called, ablations, rows, [*skipped, *failed_lines(failures)])
    return report_failures(failures)


def publish_ablations(
    folder: Path, called: str, ablations: Sequence[Method], rows: pd.DataFrame, notes: Sequence[str]
) -> None:
    """Print the tables of changes and write all files.

    Raises:
        UserError: If no run of the unchanged method, the reference of all differences, is finished.
    """
    changes = paired_changes(rows, {method.name: method.measure for method in ablations}, FULL)
    if changes.empty:
        raise UserError("no run of the unchanged method is finished; the differences are to it")
    tables, over = {"Ablation": summarise_changes(changes)}, overall_changes(changes)
    if not over.empty:
        tables["Overall: mean over all pairs of data set and backbone"] = over
    publish(folder, called, tables, changes, notes, "ablation")


# ---------------------------------------------------------------- results.sh


def results(argv: Sequence[str], page: Path = PAGE) -> int:
    """Put the tables of the benchmark into docs/results.md. Returns the exit code."""
    parser = Parser(prog="scripts/results.sh", description="Copy the benchmark's tables into docs/results.md.")
    about = "full.md as written by compare.sh --benchmark full"
    parser.add_argument("--benchmark", type=called_from, required=True, metavar="FILE", help=about)
    text = fill_page(read_text(page), parser.parse_args(argv).benchmark)
    with replacing(page) as draft:
        draft.write_text(text, encoding="utf-8")
    print_files([page])
    return 0
