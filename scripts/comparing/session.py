"""What `compare.sh` and `ablate.sh` share: flags, running what is missing, and how a session ends."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from coft.core.errors import Parser, UserError, did_you_mean
from coft.core.files import ensure_folder
from scripts.launch import CONFIGS, slug
from scripts.paths import called_from, data_folder

from .methods import Method, Settings
from .plan import Grid, Run, plan
from .runner import TRAIN, run_all
from .tables import made_by

KEY = re.compile(r"[A-Z0-9_]+(\.[A-Z0-9_]+)*")
SEEDS = (1, 2, 3)  # of who names none
OWN_IMAGES = "folder"  # the data set of a user's own images


def make_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Build the parser of the flags that both scripts have."""
    parser = Parser(prog=f"scripts/{program}.sh", description=description)
    parser.add_argument("--seeds", type=numbers, metavar="1,2,3", help="default: 1,2,3; of the benchmark, its own")
    parser.add_argument("--backbone", type=names, default=[None], metavar="B,B2", help="default: the data set's own")
    parser.add_argument(
        "--data", type=called_from, default=data_folder(), help="folder of all data sets (default: $DATA or data)"
    )
    parser.add_argument(
        "--output", type=called_from, default=Path("output"), help="folder of all runs (default: output)"
    )
    parser.add_argument("--name", type=plain_name, help="name of the folder of tables (default: the data sets')")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; they share the cores")
    parser.add_argument("--no-run", action="store_true", help="tabulate what is finished, run nothing")
    parser.add_argument("words", nargs="*", metavar="DATASET KEY VALUE", help="data sets, settings of all runs")
    return parser


def names(text: str) -> list[str]:
    """Split at commas.

    Raises:
        argparse.ArgumentTypeError: If nothing is left.
    """
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise argparse.ArgumentTypeError("expected at least one, with commas between them")
    return found


def numbers(text: str) -> list[int]:
    """Split at commas, to whole numbers.

    Raises:
        argparse.ArgumentTypeError: If one is none, or below 0.
    """
    if wrong := [word for word in names(text) if not word.isdecimal()]:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between them, not {wrong[0]!r}")
    return [int(word) for word in names(text)]


def plain_name(text: str) -> str:
    """A name of a folder below the output folder.

    Raises:
        argparse.ArgumentTypeError: If it would lead elsewhere.
    """
    if Path(text).name != text:
        raise argparse.ArgumentTypeError(f"expected a name without folders, not {text!r}")
    return text


def make_grid(args: argparse.Namespace) -> Grid:
    """Data sets, seeds, backbones and settings that the flags name.

    Raises:
        UserError: If they name no data set, an unknown one, no seed, or a key without a value.
    """
    first = next((i for i, word in enumerate(args.words) if KEY.fullmatch(word)), len(args.words))
    datasets, pairs = args.words[:first], args.words[first:]
    known = sorted(path.stem for path in (CONFIGS / "datasets").glob("*.yaml") if path.stem != OWN_IMAGES)
    if not datasets:
        raise UserError(f"name at least one data set; known are: {', '.join(known)}")
    for name in datasets:
        if name == OWN_IMAGES:
            raise UserError(f"{name}: one's own images are no benchmark; docs/howto/add-a-dataset.md makes them one")
        if name not in known:
            raise UserError(f"unknown data set {name!r}; {did_you_mean(name, known)}")
    if len(pairs) % 2:
        raise UserError(f"{pairs[-1]}: a key without a value; write KEY VALUE pairs after the data sets")
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}; expected at least 1")
    settings: Settings = tuple(zip(pairs[::2], pairs[1::2], strict=True))
    unique, seeds, backbones = (list(dict.fromkeys(words)) for words in (datasets, args.seeds or SEEDS, args.backbone))
    # absolute: the scripts of trainers, too, take a relative one as of where the user stands
    return Grid(unique, seeds, backbones, str(args.data.resolve()), args.output, settings)


def make_folder(args: argparse.Namespace, grid: Grid, kind: str) -> Path:
    """Folder for the tables of a session."""
    backbones = [slug(name) for name in grid.backbones if name]
    return args.output / kind / (args.name or "+".join([*grid.datasets, *backbones]))


def unclaimed(folder: Path, args: argparse.Namespace, command: str) -> Path:
    """A folder for tables, or one beside it with a number, that has none of another command; a given --name stays."""
    if args.name:
        return folder
    places = (folder if number == 1 else folder.with_name(f"{folder.name}-{number}") for number in count(1))
    return next(place for place in places if made_by(place) in (None, command))


def failed_lines(failures: Mapping[Run, str]) -> list[str]:
    """Failed runs, a line each."""
    return [f"failed: {run.title}: {error}" for run, error in failures.items()]


def carry_out(
    methods: Sequence[Method], grid: Grid, args: argparse.Namespace, command: Sequence[str] = TRAIN
) -> tuple[list[Run], dict[Run, str]]:
    """Plan all runs and do those that are not finished, one seed after the other.

    Returns:
        All runs, and the errors of those that failed.
    """
    return do_runs(plan(methods, grid), grid, args, command)


def do_runs(
    runs: list[Run], grid: Grid, args: argparse.Namespace, command: Sequence[str], others: Sequence[Run] = ()
) -> tuple[list[Run], dict[Run, str]]:
    """Do those of some runs that are not finished, each folder's once. Returns what `carry_out` does.

    They may take Phase I from one another, and from `others`.
    """
    summaries = {run: run.summary() for run in (*runs, *others)}
    by_folder = {run.folder: run for run in reversed(runs)}  # rows may share a run and differ in what they measure
    unique = [run for run in runs if by_folder[run.folder] == run]
    seeds = dict.fromkeys([*grid.seeds, *(run.seed for run in unique)])
    todo = [run for seed in seeds for run in unique if run.seed == seed and summaries[run] is None]
    known_elsewhere = f"; known from elsewhere: {len(others)}" if others else ""
    print(f"runs: {len(unique)}, finished: {len(unique) - len(todo)}{known_elsewhere}", file=sys.stderr)
    if args.no_run or not todo:
        return runs, {}
    ensure_folder(grid.output, "--output")
    known = {run: summary["seconds"] for run, summary in summaries.items() if summary}
    return runs, run_all(todo, jobs=args.jobs, command=command, known=known)


def report_failures(failures: dict[Run, str]) -> int:
    """List failed runs.

    Returns:
        1 if there are any, else 0.
    """
    for line in failed_lines(failures):
        print(line, file=sys.stderr)
    return int(bool(failures))


def command_line(program: str, argv: Sequence[str]) -> str:
    """How the script was called, to be shown with its tables; without what changes no number."""
    words = [word for before, word in zip(["", *argv], argv, strict=False) if "--jobs" not in (before, word)]
    return shlex.join(["bash", f"scripts/{program}.sh", *(word for word in words if word != "--no-run")])
