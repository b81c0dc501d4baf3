"""Prediction speed of a finished model, compared with its bare encoders: bash scripts/bench.sh --predict RUN FOLDER.

Measured for batches of the size that `predict.sh` uses, and for one image at a time. With onnxruntime also for the
model exported to ONNX; an export to open_clip is one of the bare encoders.
"""

from __future__ import annotations

import importlib.util
import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate

from coft.core.errors import Parser
from coft.inference.export.merging import Exported, parts_of
from coft.inference.export.onnx_file import FILE, runner, write_onnx
from coft.inference.model import AdaptedModel
from coft.inference.predict import reported
from coft.inference.sources import Sources
from coft.inference.store import load
from coft.inference.stream import BATCH, predict_all
from scripts.paths import called_from

SINGLE_PROCESS, FILES, ONNX = "bare encoders", "files", "ONNX"
ROUNDS = 3  # measurements, of which the best counts
SINGLE = 10  # factor by which the number of images is smaller for one image at a time


@dataclass(frozen=True)
class Predictors:
    """Functions from a number of images and a batch size to the number of images that they predicted.

    Attributes:
        model: Model of a finished run.
        folder: Folder of images.
        onnx: Folder with the model in ONNX; None without onnxruntime.
    """

    model: AdaptedModel
    folder: Path
    onnx: Path | None

    def all(self) -> dict[str, Callable[[int, int], int]]:
        """Return the predictors by name."""
        predictors = {SINGLE_PROCESS: self._on_noise(self.model.features), FILES: self._files}
        return predictors | ({ONNX: self._on_noise(runner(self.onnx / FILE))} if self.onnx else {})

    def _files(self, count: int, size: int) -> int:
        return sum(1 for _ in predict_all(self.model, itertools.islice(Sources([str(self.folder)]), count), size))

    def _on_noise(self, predict: Callable[[torch.Tensor], object]) -> Callable[[int, int], int]:
        side = self.model.inputs.size

        def work(count: int, size: int) -> int:
            batch = torch.randn(size, 3, side, side, device=self.model.device)
            for _ in range(-(-count // size)):
                predict(batch)
            return -(-count // size) * size

        return work


def seconds_of(work: Callable[[], int]) -> tuple[float, float]:
    """Return wall-clock seconds and CPU seconds per image; other programs on the machine affect the latter less."""
    clock, processor = time.perf_counter(), time.process_time()
    done = work()
    return (time.perf_counter() - clock) / done, (time.process_time() - processor) / done


def rows(model: AdaptedModel, predictors: Predictors, images: int) -> list[list[object]]:
    """Return rows of the table: batch size, predictor, milliseconds per image, and their ratio to the bare encoders."""
    table: list[list[object]] = []
    for size, count in ((BATCH[model.device.type], images), (1, max(1, images // SINGLE))):
        named = {name: partial(predict, count, size) for name, predict in predictors.all().items()}
        for work in named.values():
            work()
        runs = [{name: seconds_of(work) for name, work in named.items()} for _ in range(ROUNDS)]
        best = {name: [min(each[name][kind] for each in runs) for kind in (0, 1)] for name in named}
        for name, numbers in best.items():
            ratios = [number / base for number, base in zip(numbers, best[SINGLE_PROCESS], strict=True)]
            table.append(
                [size, name, *(f"{1000 * s:.1f} ({ratio:.2f})" for s, ratio in zip(numbers, ratios, strict=True))]
            )
    return table


@reported
def measure() -> int:
    """Print the table. Returns the exit code."""
    parser = Parser(prog="scripts/bench.sh --predict", description="Measure a finished model's predictions.")
    parser.add_argument("run", type=called_from, help="folder of the run")
    parser.add_argument("folder", type=called_from, help="of images")
    parser.add_argument("--images", type=int, default=1000, help="default: 1000; one at a time, a tenth of it")
    args = parser.parse_args()
    model = load(args.run, "cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        onnx = Path(scratch) if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx") else None
        if onnx:
            exact = load(args.run, precision="fp32")
            write_onnx(exact, Exported(parts_of(exact, "both")).eval(), onnx, None)
        table = rows(model, Predictors(model, args.folder, onnx), args.images)
    headers = ["at a time", "way", "ms an image by the clock", "of the processor"]
    print(tabulate(table, headers, tablefmt="pipe", disable_numparse=True))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"In brackets: times those of the {SINGLE_PROCESS}. At most {memory} MiB of memory")
    return 0


if __name__ == "__main__":
    sys.exit(measure())
