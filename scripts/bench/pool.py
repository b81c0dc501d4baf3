"""Measure the labelling decisions of a run on a large pool, without encoding: bash scripts/bench.sh --pool.

Features are simulated: the vector of a class plus noise, a function of the index, so that a pool can have any size.
Everything else is the code of a run: engine, CoFT's seeds and labellings, communication between processes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn
from torch.distributed.launcher.api import elastic_launch

from coft.backbones.feature_cache import cached
from coft.core import processes
from coft.core.errors import Parser
from coft.core.exit_codes import guarded
from coft.core.seeding import generator
from coft.core.timing import Stopwatch
from coft.core.world import World
from coft.engine.engine import Engine
from coft.engine.runtime import Runtime
from coft.method.coft import REFRESH, CoFT
from coft.method.coft_settings import CoFTSettings
from scripts.bench import integers
from scripts.distributed import launch_config

NOISE = 1.0
BATCH = 256  # images encoded at a time
ENCODING, REST = "encoding", "the rest"


class SimulatedImages:
    """Simulated pool: the images are their own features."""

    batch_size = 32

    def __init__(self, count: int, text: Tensor) -> None:
        self.count, self.text = count, text

    def __len__(self) -> int:
        return self.count

    def steps(self, images: int) -> int:
        """Return the number of batches for a number of images."""
        return -(-images // self.batch_size)

    def plain(self, index: Tensor | None = None, num_views: int = 1, key: Sequence[int | str] = ()) -> Iterator[Tensor]:
        """Yield batches of images. Shape (n, width, 1, 1)."""
        chosen = torch.arange(self.count) if index is None else index
        for part in chosen.split(BATCH):
            width = self.text.shape[1]
            noise = torch.randn(len(part), width, generator=generator("noise", int(part[0]))) * NOISE / width**0.5
            yield (self.text[part % len(self.text)] + noise)[:, :, None, None]

    def batches(self, *args: Any, **few: Any) -> Sequence[Any]:
        """Return no training batches: nothing is trained."""
        return ()


class Vectors(nn.Module):
    """Prompts that consist of a vector for each class."""

    def __init__(self, text: Tensor, source: torch.Generator) -> None:
        super().__init__()
        self.positive = nn.Parameter(text + 0.01 * torch.randn(text.shape, generator=source))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return unit vectors, shape (C, width) each; the negative ones are opposite to the positive ones."""
        positive = F.normalize(self.positive, dim=1)
        return positive, -positive


class SimulatedClip:
    """CLIP whose image encoder only flattens the images.

    Args:
        text: Unit vectors of the classes. Shape (C, width).
        folder: Folder of the feature cache.
    """

    def __init__(self, text: Tensor, folder: Path) -> None:
        self.text, self.folder = text, folder
        self.visual: nn.Module = nn.Flatten()
        self.scale, self.classnames = 100.0, range(len(text))

    def member(self, number: int) -> SimulatedClip:
        """Return itself: it has a single member."""
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Return unit-length features."""
        return F.normalize(self.visual(images), dim=1)

    def cached_features(self, images: Any, num_views: int, key: Any, compute: Callable[[], Tensor]) -> Tensor:
        """Return features from the cache on disk, as in a run."""
        return cached(compute, self.folder, "clip", shape=(len(images), self.text.shape[1]))

    def zero_shot_text(self) -> Tensor:
        """Return the vectors of the classes."""
        return self.text

    def prompts(self, number: int, num_ctx: int, source: torch.Generator) -> nn.Module:
        """Return slightly different vectors for each peer."""
        return Vectors(self.text, source)

    def light_module(self, name: str, source: torch.Generator) -> nn.Module:
        """Return a module without parameters."""
        return nn.Flatten()


class MemoryWatch(threading.Thread):
    """Thread that samples the process's own memory ten times per second; `most` is the peak in GB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = 0.0, threading.Event()

    def run(self) -> None:
        """Sample until `end` is called."""
        while not self.over.wait(0.1):
            self.most = max(self.most, own_memory())

    def end(self) -> float:
        """Stop sampling. Returns the peak in GB."""
        self.over.set()
        self.join()
        return self.most


def own_memory() -> float:
    """Return the anonymous resident memory of this process in GB; pages of mapped files, reclaimable, do not count."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return float(status.partition("RssAnon:")[2].split()[0]) / 1e6


def decide_all(images: int, classes: int, width: int, world: World, folder: Path) -> dict[str, float]:
    """Make the labelling decisions of a run: seeds, the labels of two epochs, and negative vectors.

    Returns:
        Seconds by step.
    """
    text = F.normalize(torch.randn(classes, width, generator=generator("text")), dim=1)
    pool: Any = SimulatedImages(images, text)
    clip: Any = SimulatedClip(text, folder)
    engine, clock = Engine(pool, clip, Runtime(1, world=world)), Stopwatch(REST)
    method = CoFT(engine, CoFTSettings(label_views=1))
    parts = {"map": "negative vectors fitted", **dict.fromkeys(("clip_features", "encode", "encode_some"), ENCODING)}
    for name, part in parts.items():
        setattr(engine, name, clock.part(part)(getattr(engine, name)))
    with clock.part("all models built"):
        engine.attach(method)
    with clock.part("seeds"):
        engine.begin()
    first = method.phase1_epochs
    with clock.part("first labels, which spread among neighbours"):
        engine.begin_epoch(first)
    later = first + REFRESH
    with clock.part("later labels"):
        engine.begin_epoch(later)
    method.epoch = method.epochs - 1
    with clock.part("end"):
        engine.end_epoch()
    return {name: seconds for name, seconds in clock.seconds.items() if name != REST}


def measure(images: int, classes: int, width: int, folder: str) -> dict[str, float]:
    """Measure in this process, one of several.

    Returns:
        Seconds by step, their sum without encoding, and the peak increase of the process's own memory.
    """
    torch.set_num_threads(1)
    world = processes.join()
    before, watch = own_memory(), MemoryWatch()
    watch.start()
    seconds = decide_all(images, classes, width, world, Path(folder))
    memory = watch.end() - before
    processes.leave()
    apart = sum(each for name, each in seconds.items() if name != ENCODING)
    return {**seconds, "all but encoding": apart, "own memory, GB": memory}


def measure_each(counts: Sequence[int], size: int, classes: int, width: int = 512) -> Iterator[dict[str, float]]:
    """Measure pools of several sizes, each in `size` new processes.

    Yields:
        Numbers of rank 0, and the largest memory of another rank.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            ranks = elastic_launch(launch_config(size, 1, ""), measure)(count, classes, width, folder)
        others = max((ranks[rank]["own memory, GB"] for rank in ranks if rank), default=0.0)
        yield {**ranks[0], "own memory of another process, GB": others}


def table(columns: Mapping[int, Mapping[str, float]]) -> str:
    """Format the numbers as a table with one column per number of images."""
    names = next(iter(columns.values()))
    rows = [[name, *(f"{column[name]:.2f}" for column in columns.values())] for name in names]
    headers = ["seconds", *(f"{count:,} images" for count in columns)]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure pools of several sizes."""
    parser = Parser(prog="scripts/bench.sh --pool", description=__doc__)
    parser.add_argument(
        "--images", type=integers, default="40000,80000,160000", metavar="N,N2", help="default: 40000,80000,160000"
    )
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1, help="of one thread each")
    args = parser.parse_args(argv)
    counts = sorted(args.images)
    columns: dict[int, dict[str, float]] = {}
    for count, numbers in zip(counts, measure_each(counts, args.processes, args.classes), strict=True):
        columns[count] = numbers
        print(f"\n{table(columns)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
