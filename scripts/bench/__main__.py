"""Measures a peer's step of Phase I, with the text tower run in three ways: bash scripts/bench.sh.

plain: 77 tokens of every class, a pass for each prompt. cut: likewise, up to the longest end of text. ours: the
project's. Weights are random, sizes CLIP's own. The output is written after every number of classes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from coft.core.errors import UserError, did_you_mean
from coft.core.exit_codes import guarded
from scripts.paths import called_from

from .measure import Measured, Memory, extrapolate, measure
from .report import Report, machine
from .ways import GEOMETRIES, WAYS, Setting, expected_operations
from .worker import available_memory

ANCHORS = (25, 100)  # classes with which a way is measured that does not fit with as many as were asked for
SHARE = 0.5  # of the memory that is available, so much may be used: the machine may have other work
BAR = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"


def make_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description="Measure a step of Phase I, three ways.")
    parser.add_argument("--classes", default="10,100,397,1000", metavar="C,C2", help="default: 10,100,397,1000")
    parser.add_argument(
        "--geometry", default="ViT-B/32,ViT-B/16", metavar="G,G2", help=f"of {', '.join(GEOMETRIES)}; default: the B's"
    )
    parser.add_argument("--batch", type=int, default=32, help="images; default: 32")
    parser.add_argument("--context", type=int, default=0, help="random context tokens; default: the template's words")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each way, by turns; default: 3")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the forward pass")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU; default: 1")
    parser.add_argument(
        "--memory", type=float, metavar="GB", help="that a step may take; default: half of what is free"
    )
    parser.add_argument(
        "--out",
        type=called_from,
        default=Path("output", "bench.md"),  # in the project's folder, as all output that no flag places
        metavar="FILE",
        help="a table; beside it, .json has all",
    )
    return parser


def check(args: argparse.Namespace) -> tuple[list[str], list[int]]:
    """Check the arguments.

    Returns:
        Geometries, and numbers of classes from few to many.

    Raises:
        UserError: If one makes no sense.
    """
    geometries = [name.strip() for name in args.geometry.split(",")]
    for name in geometries:
        if name not in GEOMETRIES:
            raise UserError(f"--geometry {name}: {did_you_mean(name, GEOMETRIES)}")
    try:
        classes = sorted({int(number) for number in args.classes.split(",")})
    except ValueError:
        raise UserError(f"--classes {args.classes}: expected numbers with commas between them, as 10,100") from None
    for flag, value, least in (
        ("--classes", classes[0], 2),
        ("--batch", args.batch, 1),
        ("--repeats", args.repeats, 1),
        ("--threads", args.threads, 1),
        ("--context", args.context, 0),
    ):
        if value < least:
            raise UserError(f"{flag} is {value}; expected at least {least}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; leave it out, or use --device cpu")
    if args.out.suffix != ".md":
        raise UserError(f"--out {args.out}: expected a name that ends in .md")
    return geometries, classes


def bench(base: Setting, classes: Sequence[int], repeats: int, limit: float, report: Report) -> None:
    """Measure all ways of one geometry, and extrapolate what does not fit.

    Args:
        base: A setting of the geometry; its way and number of classes do not matter.
        classes: Numbers of classes, from few to many.
        repeats: Number of timed steps.
        limit: Bytes that a step may take.
        report: Gets what is found, and writes it after every number of classes.
    """
    memory = Memory(base.but(way="plain"), limit)
    cells = {count: [base.but(way=way, classes=count) for way in WAYS] for count in classes}
    fitting = {count: [s for s in cell if memory.fits(s)] for count, cell in cells.items()}
    anchors: dict[int, list[Setting]] = {}
    for way in WAYS:
        there = {s.classes for cell in fitting.values() for s in cell if s.way == way}
        if len(there) < len(classes) and (len(there) < 2 or max(there) < ANCHORS[-1]):
            for count in set(ANCHORS) - there:
                anchors.setdefault(count, []).append(base.but(way=way, classes=count))
    anchors = {count: cell for count, all_ in anchors.items() if (cell := [s for s in all_ if memory.fits(s)])}
    plan = sorted([*anchors.items(), *fitting.items()], key=lambda item: item[0])
    work = sum(expected_operations(s) for _, cell in plan for s in cell) * (repeats + 1)
    found: list[Measured] = []
    with tqdm(total=work, bar_format=BAR, disable=None, dynamic_ncols=True) as bar:
        for count, cell in plan:
            bar.set_description_str(f"{base.geometry}, {count} classes")
            found += measure(cell, repeats, lambda setting: bar.update(expected_operations(setting)))
            report.add(complete(cells.get(count, []), found))
    report.add([row for count in classes for row in complete(cells[count], found)])


def complete(cell: Sequence[Setting], found: Sequence[Measured]) -> list[Measured]:
    """What was found of the settings of a cell, and what can be extrapolated of the others."""
    rows = []
    for setting in cell:
        here = [m for m in found if m.setting == setting]
        smaller = [m for m in found if m.setting.but(classes=0) == setting.but(classes=0) and m.seconds]
        if here:
            rows += here
        elif len(smaller) > 1:
            rows.append(extrapolate(setting, smaller))
    return rows


def run(args: argparse.Namespace) -> str:
    """Measure what the arguments say.

    Returns:
        The table.

    Raises:
        UserError: If an argument makes no sense, or the output cannot be written.
    """
    geometries, classes = check(args)
    limit = args.memory * 1e9 if args.memory else SHARE * available_memory(args.device)
    report = Report(args.out, machine(args.device, args.threads), _command(args), args.repeats)
    for geometry in geometries:
        base = Setting(
            geometry, "ours", classes[0], args.batch, args.context, args.device, args.precision, args.threads
        )
        bench(base, classes, args.repeats, limit, report)
    return f"{report.table('simple_outline')}\n{args.out} has this table, {args.out.with_suffix('.json')} all numbers."


def _command(args: argparse.Namespace) -> str:
    parser = make_parser()
    words = ["bash scripts/bench.sh"]
    for name, value in vars(args).items():
        if name != "out" and value != parser.get_default(name):
            words.append(f"--{name} {value}")
    return " ".join(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Returns:
        0, or 2 after a mistake of the user's.
    """

    def work() -> int:
        print(run(make_parser().parse_args(argv)))
        return 0

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
