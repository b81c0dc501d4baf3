"""Measure how training and encoding scale with the number of processes: bash scripts/bench.sh --scaling.

Measured are a Phase II step of one model, with gradients summed over the processes, and encoding. Each process has a
GPU or, on a CPU, one thread. "One batch" is a run's batch, split over the processes (strong scaling); "a batch each" is
a batch for each process (weak scaling).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch.distributed.launcher.api import elastic_launch

from coft.backbones.load import architecture, load_clip
from coft.backbones.tower import width_of
from coft.core import processes
from coft.core.errors import Parser
from coft.core.exit_codes import guarded
from coft.core.world import World
from coft.engine.optimizers import full_optimizer
from coft.engine.runtime import Runtime
from coft.labelling.classifier import Classifier
from coft.labelling.student import trainable_copy
from scripts.bench import integers
from scripts.distributed import launch_config

CLASSES = 100
WARM = 2  # warm-up steps, not timed


def seconds_of(work: Callable[[], Any], world: World, steps: int) -> float:
    """Return the mean seconds per step."""
    for _ in range(WARM):
        work()
    world.barrier()
    began = time.perf_counter()
    for _ in range(steps):
        work()
    world.barrier()
    return (time.perf_counter() - began) / steps


def measured(backbone: str, batch: int, steps: int, bf16: bool) -> list[list[float]]:
    """Measure in this process, one of several.

    Returns:
        Rows of images in the whole batch, and seconds; one row for each entry of `WORK`.
    """
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    world = processes.join()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clip_model: Any = load_clip(backbone).to(device)
    size = architecture(backbone).resolution
    runtime = Runtime(1, device, torch.bfloat16 if bf16 else None, world=world)
    visual = trainable_copy(clip_model.visual).float()
    heads = [torch.nn.Parameter(torch.randn(CLASSES, width_of(clip_model), device=device)) for _ in range(2)]
    student = Classifier(visual, heads[0], heads[1], 100.0)
    optimizer = full_optimizer(student, 1e-5, 10.0)
    trained = [p for p in student.parameters() if p.requires_grad]
    results = []
    for whole in (batch, batch * world.size):
        part = world.part(whole)
        images = torch.randn(part.stop - part.start, 3, size, size, device=device)
        labels = torch.arange(part.start, part.stop, device=device) % CLASSES

        def step(images: torch.Tensor = images, labels: torch.Tensor = labels, whole: int = whole) -> None:
            with runtime.autocast():
                logits, log_odds = student(images)
            loss = torch.nn.functional.cross_entropy(logits.float() + log_odds, labels, reduction="sum") / whole
            optimizer.zero_grad()
            loss.backward()
            world.add_gradients(trained, [])
            optimizer.step()

        results.append([whole, seconds_of(step, world, steps)])

    def encode() -> None:
        with torch.no_grad(), runtime.autocast():
            student.features(images).cpu()

    results.append([whole, seconds_of(encode, world, steps)])
    processes.leave()
    return results


WORK = ("step, one batch", "step, a batch each", "encoding, a batch each")


def table(by_size: dict[int, list[list[float]]]) -> str:
    """Format images per second and efficiency by number of processes; the efficiency of the smallest number is 1."""
    first = min(by_size)
    rows = []
    for place, name in enumerate(WORK):
        for size, results in by_size.items():
            images, seconds = results[place]
            base = by_size[first][place]
            efficiency = images / seconds / size / (base[0] / base[1] / first)
            rows.append([name, size, int(images), seconds, images / seconds, efficiency])
    headers = ["work", "processes", "images", "seconds", "images a second", "efficiency"]
    return tabulate(rows, headers=headers, tablefmt="pipe", floatfmt=(*[""] * 3, ".3f", ".1f", ".2f"))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure several numbers of processes."""
    parser = Parser(prog="scripts/bench.sh --scaling", description=__doc__)
    parser.add_argument("--processes", type=integers, metavar="N,N2", help="default: 1, 2, 4 ... to the GPUs; or 1,2")
    parser.add_argument("--backbone", default="embedded", help="as of scripts/coft.sh")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args(argv)
    most = torch.cuda.device_count() or 2
    sizes = args.processes or [n for n in (1, 2, 4, 8) if n <= most]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    by_size = {}
    for size in sizes:
        work = elastic_launch(launch_config(size, 1, ""), measured)
        by_size[size] = work(args.backbone, args.batch, args.steps, args.bf16)[0]
        print(f"\n{table(by_size)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
