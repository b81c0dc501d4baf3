"""How fast `predict.sh` is, and how much memory it needs: python -m scripts.bench.predict RUN FOLDER [--images 99]."""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from coft.use.model import AdaptedModel
from coft.use.predict import said
from coft.use.sources import Sources
from coft.use.store import load
from coft.use.stream import BATCH, predict_all


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


def speed(work: Callable[[], int]) -> float:
    """Images a second."""
    started = time.perf_counter()
    return work() / (time.perf_counter() - started)


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
    found = {name: max(speeds[name] for speeds in rounds) for name in ways}
    print(f"{found['encoders']:.0f} images a second by the encoders alone, {found['files']:.0f} from files: "
          f"{100 * found['files'] / found['encoders']:.0f} %")  # fmt: skip
    print(f"At most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB of memory")
    return 0


if __name__ == "__main__":
    sys.exit(said(measure))
