"""How fast `predict.sh` is, and how much memory it needs: python -m scripts.bench.predict RUN FOLDER [--images 99]."""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from coft.inference.model import AdaptedModel
from coft.inference.predict import run_command
from coft.inference.sources import Sources
from coft.inference.store import load
from coft.inference.stream import BATCH, predict_all


def encoders_alone(model: AdaptedModel, count: int) -> Callable[[], int]:
    """Predict batches of noise that are at hand already."""
    size = BATCH[model.device.type]
    batch = torch.randn(size, 3, model.inputs.size, model.inputs.size, device=model.device)

    def work() -> int:
        for _ in range(0, count, size):
            model.predict(batch).probabilities.cpu()
        return -(-count // size) * size

    return work


def from_files(model: AdaptedModel, folder: Path, count: int) -> Callable[[], int]:
    """Predict files, as `predict.sh` does."""
    return lambda: sum(1 for _ in predict_all(model, itertools.islice(Sources([str(folder)]), count)))


class Speed(NamedTuple):
    """Images a second of the clock, and of processor time, which other programs on the machine change less."""

    clock: float
    processor: float


def speed(work: Callable[[], int]) -> Speed:
    """Images a second."""
    clock, processor = time.perf_counter(), time.process_time()
    done = work()
    return Speed(done / (time.perf_counter() - clock), done / (time.process_time() - processor))


def measure() -> int:
    """Measure both by turns, and print the best of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    model = load(args.run, "cuda" if torch.cuda.is_available() else "cpu")
    ways = {"encoders": encoders_alone(model, args.images), "files": from_files(model, args.folder, args.images)}
    for way in ways.values():
        way()
    rounds = [{name: speed(way) for name, way in ways.items()} for _ in range(args.rounds)]
    for kind in Speed._fields:
        best = {name: max(getattr(speeds[name], kind) for speeds in rounds) for name in ways}
        print(f"{best['encoders']:.1f} images a second of the {kind} by the encoders alone, {best['files']:.1f} from "
              f"files: {100 * best['files'] / best['encoders']:.0f} %")  # fmt: skip
    print(f"At most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB of memory")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(measure))
