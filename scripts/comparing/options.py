"""Shared parts of the commands: flags, parsing of data sets and settings, and reports of failures."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import torch

from coft.core.errors import Parser, UserError, did_you_mean
from scripts.launch import CONFIGS, slug
from scripts.paths import called_from, data_folder

from .methods import ABLATIONS, default_trainers
from .plan import Grid, Run
from .tables import made_by

KEY = re.compile(r"[A-Z0-9_]+(\.[A-Z0-9_]+)*")
MAX_NAME_LENGTH = 100
MAX_PARTS = 10_000  # largest number of parts of a benchmark
SEEDS = (1, 2, 3)  # default seeds
FOLDER = "folder"  # the data set of a user's own images
log = logging.getLogger(__name__)


def make_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Build the parser of the flags that all running commands share."""
    parser = Parser(prog=f"scripts/{program}.sh", description=description)
    parser.add_argument(
        "--seeds", type=_numbers, metavar="1,2,3", help="default: 1,2,3; with --benchmark, the benchmark's seeds"
    )
    parser.add_argument(
        "--backbone", type=_names, default=[None], metavar="B,B2", help="default: the default backbone of the data set"
    )
    parser.add_argument(
        "--data", type=called_from, default=data_folder(), help="folder of all data sets (default: $DATA or data)"
    )
    parser.add_argument(
        "--output", type=called_from, default=Path("output"), help="folder of all runs (default: output)"
    )
    parser.add_argument(
        "--name", type=_plain_name, help="folder of the tables, which replace earlier ones (default: the data sets)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of concurrent runs; they share the cores")
    parser.add_argument(
        "--gpus",
        type=_numbers,
        default=[],
        metavar="0,1",
        help="GPUs to use, one run at a time on each (default: the first)",
    )
    parser.add_argument("--no-run", action="store_true", help="tabulate finished runs without starting new ones")
    parser.add_argument("words", nargs="*", metavar="DATASET KEY VALUE", help="data sets, then settings for all runs")
    return parser


def compare_parser() -> argparse.ArgumentParser:
    """Build the parser of compare.sh."""
    parser = make_parser(
        "compare",
        "Run trainers on data sets with several seeds each, and tabulate the results. Finished runs are reused.",
    )
    usual = ", ".join(default_trainers())
    parser.add_argument("--trainers", type=_names, default=[], metavar="T,T2", help=f"default: {usual}")
    parser.add_argument(
        "--shots", type=_numbers, default=[1, 2, 4, 8, 16], metavar="1,2", help="for CoOp; default: 1,2,4,8,16"
    )
    parser.add_argument(
        "--from", action="append", dest="folders", metavar="FOLDER", help="tabulate the runs of this folder or runs.csv"
    )
    parser.add_argument(
        "--benchmark",
        metavar="FORM",
        help="paper: the paper's table, on all GPUs; full, small or a role: units and rows of configs/benchmark.yaml",
    )
    parser.add_argument("--sets", type=_names, default=[], metavar="S,S2", help="data sets of --benchmark paper")
    parser.add_argument(
        "--part",
        type=_part,
        default=(1, 1),
        metavar="I/N",
        help="with --benchmark: run only part I of N, to split the work over N machines",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="with --benchmark: print what is missing and how many runs are left, and run nothing",
    )
    parser.add_argument(
        "--kept",
        type=called_from,
        metavar="FILE",
        help="file of benchmark results (JSON lines): runs it contains are skipped, new results are appended",
    )
    parser.add_argument(
        "--again",
        action="append",
        default=[],
        metavar="ROW",
        help="run a row again although FILE of --kept has it, and append the result; needs another --output",
    )
    return parser


def ablate_parser() -> argparse.ArgumentParser:
    """Build the parser of ablate.sh."""
    parser = make_parser(
        "ablate", "Change the switches of a method one by one, and tabulate paired differences to the unchanged method."
    )
    parser.add_argument("--trainer", choices=ABLATIONS, default="CoFT", help="default: CoFT")
    parser.add_argument("--groups", type=_names, default=[], metavar="G,G2", help="groups of ablations; default: all")
    parser.add_argument(
        "--row", action="append", default=[], metavar="NAME", help="name of an ablation; may be repeated"
    )
    return parser


def _names(text: str) -> list[str]:
    """Split a text at commas, as an argparse type."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise argparse.ArgumentTypeError("expected at least one, with commas between them")
    return words


def _numbers(text: str) -> list[int]:
    """Parse comma-separated integers, as an argparse type."""
    words = _names(text)
    if wrong := [word for word in words if not word.isdecimal()]:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between them, not {wrong[0]!r}")
    return [int(word) for word in words]


def _part(text: str) -> tuple[int, int]:
    """Parse I/N, the number of a part and the number of parts, as an argparse type."""
    numbers = [int(word) for word in text.split("/") if word.isdecimal()]
    if len(numbers) != 2 or text.count("/") != 1 or not 1 <= numbers[0] <= numbers[1] <= MAX_PARTS:
        raise argparse.ArgumentTypeError(
            f"expected I/N, such as 1/4 for the first of four parts, at most {MAX_PARTS:,}, not {text!r}"
        )
    return numbers[0], numbers[1]


def _plain_name(text: str) -> str:
    """Check the name of a folder below the output folder, as an argparse type; a path is refused."""
    if Path(text).name != text or text in ("", "..") or len(text) > MAX_NAME_LENGTH:
        raise argparse.ArgumentTypeError(f"expected a name without folders, not {text!r}")
    return text


# ---------------------------------------------------------------- what the flags say


def make_grid(args: argparse.Namespace) -> Grid:
    """Build the grid of data sets, seeds, backbones and settings from the arguments, and choose the devices.

    Raises:
        UserError: If there is no data set, an unknown one, a key without a value, or a wrong device.
    """
    first = next((i for i, word in enumerate(args.words) if KEY.fullmatch(word)), len(args.words))
    datasets, pairs = args.words[:first], args.words[first:]
    choices = sorted(path.stem for path in (CONFIGS / "datasets").glob("*.yaml") if path.stem != FOLDER)
    if not datasets:
        raise UserError(f"name at least one data set; known are: {', '.join(choices)}")
    for name in datasets:
        if name == FOLDER:
            raise UserError(f"{name}: one's own images are no benchmark; docs/howto/add-a-dataset.md makes them one")
        if name not in choices:
            raise UserError(f"unknown data set {name!r}; {did_you_mean(name, choices)}")
    if len(pairs) % 2:
        raise UserError(f"{pairs[-1]}: a key without a value; write KEY VALUE pairs after the data sets")
    choose_devices(args)
    settings = tuple(zip(pairs[::2], pairs[1::2], strict=True))
    unique, seeds, backbones = (list(dict.fromkeys(words)) for words in (datasets, args.seeds or SEEDS, args.backbone))
    # Absolute, because the trainers' scripts take a relative path as relative to the caller's folder.
    return Grid(unique, seeds, backbones, str(args.data.resolve()), args.output, settings)


def choose_devices(args: argparse.Namespace, every: bool = False) -> None:
    """Set `args.devices` to the chosen GPUs. With `every`, all GPUs are chosen if no flag is given.

    Raises:
        UserError: If there is no such GPU, or the number of concurrent runs is wrong or given twice.
    """
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}; expected at least 1")
    if args.gpus and args.jobs > 1:
        raise UserError("--gpus has one run at a time on each GPU; leave out --jobs")
    args.devices = devices(args.gpus, every and args.jobs == 1)


def devices(numbers: Sequence[int], every: bool = False) -> list[str]:
    """Return the names of GPUs for CUDA_VISIBLE_DEVICES.

    Args:
        numbers: Indices among the GPUs that this process sees. Without any GPU, this many runs share the CPU, with a
            warning.
        every: Whether an empty sequence stands for all GPUs that this process sees.

    Raises:
        UserError: If there is no such GPU, or one is named twice.
    """
    if twice := [number for number, times in Counter(numbers).items() if times > 1]:
        raise UserError(f"--gpus names {twice[0]} several times; a GPU has one run at a time")
    number_seen = torch.cuda.device_count()
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    seen = names[:number_seen] if names else [str(number) for number in range(number_seen)]
    if not seen:
        if numbers:
            log.warning("--gpus: no GPU is seen here, so runs take the CPU")
        return [str(number) for number in numbers]
    if wrong := [number for number in numbers if number >= len(seen)]:
        raise UserError(f"--gpus {wrong[0]}: expected numbers from 0 to {len(seen) - 1}, the GPUs that are seen here")
    return [seen[number] for number in numbers] if numbers or not every else seen


def make_folder(args: argparse.Namespace, grid: Grid, kind: str) -> Path:
    """Return the folder for the tables of a command."""
    backbones = [slug(name) for name in grid.backbones if name]
    return args.output / kind / (args.name or "+".join([*grid.datasets, *backbones]))


def numbered_folder(folder: Path, args: argparse.Namespace, called: str) -> Path:
    """Append a number to a folder for tables if it holds tables of another command, unless --name is given."""
    if args.name:
        return folder
    places = (folder if number == 1 else folder.with_name(f"{folder.name}-{number}") for number in count(1))
    return next(place for place in places if made_by(place) in (None, called))


def command_line(program: str, argv: Sequence[str]) -> str:
    """Return the script's command line for its tables, without flags that do not affect them."""
    with_value = {"--jobs", "--gpus", "--part"}
    words = [
        word
        for before, word in zip(["", *argv], argv, strict=False)
        if before not in with_value and word.partition("=")[0] not in {*with_value, "--no-run"}
    ]
    return shlex.join(["bash", f"scripts/{program}.sh", *words])


def failed_lines(failures: Mapping[Run, str]) -> list[str]:
    """Format failed runs, one per line."""
    return [f"failed: {run.title}: {error}" for run, error in failures.items()]


def report_failures(failures: Mapping[Run, str]) -> int:
    """Print failed runs. Returns the exit code: 1 if there are any, else 0."""
    for line in failed_lines(failures):
        print(line, file=sys.stderr)
    return int(bool(failures))
