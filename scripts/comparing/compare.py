"""Runs trainers on data sets and tabulates them.

bash scripts/compare.sh DATASET ... [--trainers T,T2] [--seeds 1,2,3] [--shots 1,2,4,8,16] [--backbone B,B2]
                        [--variant NAME:TRAINER:KEY=VALUE,...] [--jobs N] [KEY VALUE ...]
bash scripts/compare.sh --benchmark FORM [--seeds 1,2] [--kept FILE]     (results in FILE are not run again)
bash scripts/compare.sh --from FOLDER [--from runs.csv ...]     (tabulates any folder of Dassl runs, or its own lists)
bash scripts/table.sh [FOLDER or runs.csv ...]                  (likewise, on the terminal alone)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from coft.core.errors import Parser, UserError, did_you_mean
from coft.core.exit_codes import guarded
from scripts.paths import called_from, shown

from .benchmark import run_benchmark
from .figures import write_bars
from .gain import gain_over_zero_shot, turning_points, write_gain
from .methods import choose_methods, defaults, parse_variant
from .results import found_rows, listed_rows, planned_rows
from .runner import TRAIN
from .session import (
    carry_out,
    command_line,
    failed_lines,
    make_folder,
    make_grid,
    make_parser,
    names,
    numbers,
    report_failures,
    unclaimed,
)
from .statistics import overall, summarise
from .tables import Tables, remove_others, titled, write_tables

DESCRIPTION = "Run trainers on data sets, several seeds each, and tabulate them. Finished runs are reused."
KIND = "comparisons"


def compare(argv: Sequence[str], command: Sequence[str] = TRAIN) -> int:
    """Run and tabulate.

    Args:
        argv: Arguments of the script.
        command: What runs a trainer, in place of `python train.py`.

    Returns:
        0, or 1 if a run failed.
    """
    parser = make_parser("compare", DESCRIPTION)
    parser.add_argument("--trainers", type=names, default=[], metavar="T,T2", help=f"default: {', '.join(defaults())}")
    parser.add_argument(
        "--shots", type=numbers, default=[1, 2, 4, 8, 16], metavar="1,2", help="for CoOp; default: 1,2,4,8,16"
    )
    parser.add_argument(
        "--variant", action="append", default=[], metavar="NAME:TRAINER:KEY=VALUE,..", help="a further row"
    )
    parser.add_argument(
        "--from", action="append", dest="folders", metavar="FOLDER", help="tabulate what is there; or a runs.csv"
    )
    parser.add_argument(
        "--benchmark", metavar="FORM", help="full, small, or a role: the units and rows of configs/benchmark.yaml"
    )
    parser.add_argument(
        "--kept", type=Path, metavar="FILE", help="a list of the benchmark's results: not run again, and added to"
    )
    args = parser.parse_intermixed_args(argv)
    if args.kept and not args.benchmark:
        raise UserError("--kept is a list of results of --benchmark; leave it out, or add --benchmark FORM")
    if args.benchmark:
        args.kept = args.kept and called_from(args.kept)
        return report_failures(run_benchmark(args, command, command_line("compare", argv)))
    if args.folders:
        refuse_plans(parser, args)
        return tabulate_found(args, command_line("compare", argv))
    grid = make_grid(args)
    methods = choose_methods(args.trainers, args.shots, [parse_variant(text) for text in args.variant])
    if args.shots != parser.get_default("shots") and not any(method.shots for method in methods):
        raise UserError("--shots: none of these trainers learns from labelled images; leave it out")
    runs, failures = carry_out(methods, grid, args, command)
    rows, called = planned_rows(runs), command_line("compare", argv)
    if rows.empty:
        print("no run is finished: nothing to tabulate", file=sys.stderr)
    else:
        publish(unclaimed(make_folder(args, grid, KIND), args, called), called, rows, failed_lines(failures))
    return report_failures(failures)


def refuse_plans(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what says which runs to do beside `--from`.

    Raises:
        UserError: Naming it.
    """
    if args.words:
        raise UserError(f"--from tabulates what is there, and runs nothing; leave out {args.words[0]}")
    for flag in ("seeds", "shots", "backbone", "variant", "data", "jobs", "no-run"):
        name = flag.replace("-", "_")
        if getattr(args, name) != parser.get_default(name):
            raise UserError(f"--from tabulates what is there, and runs nothing; leave out --{flag}")


def tabulate_found(args: argparse.Namespace, command: str) -> int:
    """Tabulate folders of runs that somebody else made, or lists of them; with --trainers only theirs."""
    folders = [called_from(folder) for folder in args.folders]
    rows = read_found(folders)
    there = list(rows["trainer"].unique())
    if unknown := [name for name in args.trainers if name not in there]:
        raise UserError(f"--trainers: no result of {unknown[0]!r}; {did_you_mean(unknown[0], there)}")
    rows = rows[rows["trainer"].isin(args.trainers or there)]
    names_of = [(place.stem if place.is_file() else place.resolve().name) for place in folders]
    folder = args.output / KIND / (args.name or "+".join(names_of))
    publish(unclaimed(folder, args, command), command, rows)
    return 0


def read_found(places: Sequence[Path]) -> pd.DataFrame:
    """Results below folders, or listed in files, each run once, sorted by data set, backbone and mean.

    Raises:
        UserError: If there is none.
    """
    for place in places:
        if not place.exists():
            raise UserError(f"{place}: no such folder or list of results; check the path")
    lists = [listed_rows(place) for place in places if place.is_file()]
    found = found_rows([place for place in places if not place.is_file()])
    rows = pd.concat([table for table in (found, *lists) if not table.empty] or [found], ignore_index=True)
    if rows.empty:
        shown = ", ".join(map(str, places))
        raise UserError(f"no summary.json or log.txt of a finished run below {shown}; run a trainer first")
    rows = rows[~repeated(rows)]
    means = rows.groupby(["dataset", "backbone", "method"])["accuracy"].transform("mean")
    return rows.assign(mean=means).sort_values(["dataset", "backbone", "mean"]).drop(columns="mean")


def repeated(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of a run's stage that an earlier row is of: folders may hold each other, lists name them again."""
    if not {"folder", "stage"} <= set(rows.columns):  # a list of somebody else's
        return pd.Series(False, index=rows.index)
    places = rows["folder"].map(lambda folder: str(Path(folder).resolve()), na_action="ignore")
    return rows.assign(folder=places).duplicated(["folder", "stage"]) & places.notna()


def make_tables(rows: pd.DataFrame) -> Tables:
    """Tables of a comparison by title: the summary, and where there is more than one pair, the mean over them."""
    tables = {"Summary": summarise(rows)}
    over = overall(rows)
    over = over if over.empty else over.sort_values("mean", kind="stable")
    pairs = rows.groupby(["dataset", "backbone"]).ngroups
    return tables if over.empty else {**tables, f"Overall: mean over {pairs} pairs of data set and backbone": over}


def publish(folder: Path, command: str, rows: pd.DataFrame, failed: Sequence[str] = ()) -> None:
    """Print the tables and write all files.

    Args:
        folder: Where to.
        command: What the tables are made with.
        rows: A line for each result.
        failed: What is missing and why, a line each, for the Markdown file.
    """
    tables = make_tables(rows)
    gains = gain_over_zero_shot(tables["Summary"])
    notes = turning_points(gains)
    files = write_tables(folder, command, tables, rows, [*notes, *failed])
    files.append(write_bars(folder / "bars.png", tables["Summary"], "mean", "method", "test accuracy, %"))
    if notes:
        files.append(write_gain(folder / "gain.png", gains))
    remove_others(folder, files)
    print("\n\n".join([titled(tables), *notes]))
    print(*(f"  {shown(file)}" for file in files), sep="\n")


def table(argv: Sequence[str]) -> int:
    """Print the tables of folders of runs; write nothing."""
    parser = Parser(prog="scripts/table.sh", description="Means over seeds of all finished runs, with 95 % intervals.")
    parser.add_argument("places", nargs="*", metavar="FOLDER", help="or a runs.csv; default: output")
    folders = [called_from(folder) for folder in parser.parse_args(argv).places] or [Path("output")]
    print(titled(make_tables(read_found(folders))))
    return 0


if __name__ == "__main__":
    script, *rest = sys.argv[1:]
    sys.exit(guarded(lambda: {"compare": compare, "table": table}[script](rest)))
