"""Growth of time and memory with images, classes and pixels: bash scripts/bench.sh --growth.

Images and classes: all labelling decisions of a run on its pool, with simulated features, as in `--pool`. Classes
also: the prompts of `embedded`. Pixels: steps and predictions of `photo`. Each point is measured in a new process with
one thread.

An exponent is the slope in a log-log plot over the upper half of the range: 1 is linear.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tabulate import tabulate
from tqdm.auto import tqdm

from coft.backbones.load import load_clip
from coft.backbones.prompts import DualPrompts
from coft.core.errors import Parser
from coft.core.exit_codes import guarded
from scripts.bench import photo, pool
from scripts.figures import write_figure
from scripts.paths import called_from, display_path

IMAGES = (1000, 4000, 16000, 64000)
CLASSES = (10, 32, 100, 320, 1000)
PIXELS = (64, 96, 128, 160, 192, 224)
POOL, NAMES = 16000, 100  # number of images where classes grow, number of classes where images grow


class Point(NamedTuple):
    """Measurement at one size.

    Attributes:
        grows: Quantity that grows: "images", "classes" or "pixels".
        work: Kind of work.
        size: Number of images, classes or pixels.
        seconds: CPU seconds.
        memory: Peak increase of the process's own memory, in GB.
    """

    grows: str
    work: str
    size: int
    seconds: float
    memory: float


def labelling(images: int, classes: int, width: int = 512) -> None:
    """Make all labelling decisions of a run on a simulated pool."""
    with tempfile.TemporaryDirectory() as folder:
        pool.decide_all(images, classes, width, pool.World(), Path(folder))


def prompts_of(classes: int) -> Callable[[], None]:
    """Build prompts of the given number of classes. Returns a function for one forward and backward pass."""
    names = [f"class {number}" for number in range(classes)]
    prompts = DualPrompts(load_clip("embedded"), names, "a photo of a {}.")

    def run() -> None:
        positive, negative = prompts()
        (positive.square().sum() + negative.square().sum()).backward()

    return run


def work_of(key: tuple[str, str], size: int) -> Callable[[], None]:
    """Return the function to measure at one size, for a key of `SIZES`."""
    grows, work = key
    if grows == "pixels":
        return dict(photo.encoder_of("photo", size, batch=32).workloads())[work]
    if work == PROMPTS:
        return prompts_of(size)
    return partial(labelling, *((size, NAMES) if grows == "images" else (POOL, size)))


LABELS, PROMPTS = "labels of a pool", "prompts, forward and back"
SIZES: dict[tuple[str, str], Sequence[int]] = {
    ("images", LABELS): IMAGES,
    ("classes", LABELS): CLASSES,
    ("classes", PROMPTS): CLASSES,
    **{("pixels", name): PIXELS for name in (*photo.STEPS, photo.FORWARD)},
}  # by the quantity that grows and the kind of work


def measure(key: tuple[str, str], size: int) -> Point:
    """Measure one point in this process."""
    torch.set_num_threads(1)
    work = work_of(key, size)
    before, watch, start = pool.own_memory(), pool.MemoryWatch(), time.process_time()
    watch.start()
    work()
    seconds = time.process_time() - start
    return Point(*key, size, seconds, max(0.0, watch.end() - before))


def points() -> Iterator[Point]:
    """Measure all points, each in a new process."""
    spawn = multiprocessing.get_context("spawn")
    for key, sizes in SIZES.items():
        for size in sizes:
            with spawn.Pool(1) as process:
                yield process.apply(measure, (key, size))


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Fit the slope of log value over log size, on the upper half of the sizes."""
    upper = slice(len(sizes) // 2 - 1, None)
    return float(np.polyfit(np.log(sizes[upper]), np.log(np.maximum(values[upper], 1e-6)), 1)[0])


def table(measured: Sequence[Point]) -> str:
    """Format a row for each kind of work: seconds and memory at the smallest and largest size, and their exponents."""
    rows = []
    for grows, work in dict.fromkeys((point.grows, point.work) for point in measured):
        line = [point for point in measured if (point.grows, point.work) == (grows, work)]
        sizes = [point.size for point in line]
        row: list[Any] = [work, f"{grows}, {sizes[0]:,} to {sizes[-1]:,}"]
        for values in ([point.seconds for point in line], [point.memory for point in line]):
            row += [f"{values[0]:.2f} to {values[-1]:.2f}", f"{exponent(sizes, values):.2f}"]
        rows.append(row)
    headers = ["work", "grows", "seconds", "exponent", "GB", "exponent"]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def plot(measured: Sequence[Point], path: Path) -> None:
    """Plot seconds and memory, with one column each for images, classes and pixels."""
    columns = list(dict.fromkeys(point.grows for point in measured))

    def draw(figure: Any) -> None:
        axes = figure.subplots(2, len(columns), squeeze=False)
        for row, (value, name) in enumerate((("seconds", "seconds"), ("memory", "GB"))):
            for axis, grows in zip(axes[row], columns, strict=True):
                for work in dict.fromkeys(point.work for point in measured if point.grows == grows):
                    line = [point for point in measured if (point.grows, point.work) == (grows, work)]
                    axis.loglog([p.size for p in line], [getattr(p, value) for p in line], marker="o", label=work)
                axis.set(xlabel=grows, ylabel=name)
                axis.legend(fontsize="small")

    write_figure(path, (3.6 * len(columns), 6), draw)


def main(argv: Sequence[str]) -> int:
    """Measure, print the table, draw the plot. Returns the exit code."""
    parser = Parser(prog="scripts/bench.sh --growth", description="Time and memory by images, classes and pixels.")
    parser.add_argument("--plot", type=called_from, default=Path("growth.svg"), help="default: growth.svg")
    args = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    measured = list(tqdm(points(), "sizes"))
    print(table(measured))
    plot(measured, args.plot)
    print(f"Plot: {display_path(args.plot)}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
