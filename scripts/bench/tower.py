"""Measures training steps and predictions of an image tower on a CPU: bash scripts/bench.sh tower.

One thread, and seconds of that thread's own, so that other work on the machine counts little. The best of some.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from coft.backbones.load import architecture, load_clip
from coft.backbones.stages import freeze_stages, hold_frozen_in_bf16, stage_names
from coft.backbones.visual_tuning import light_module
from coft.core.errors import Parser, UserError
from coft.core.exit_codes import guarded
from coft.core.precision import PREDICTIONS
from coft.method.peer import trainable_copy

FROZEN = (0, 3, 5)  # stages
TYPES = {"fp32": None, "bf16": torch.bfloat16, PREDICTIONS: None}  # of steps


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(_count, text.split(",")))


def make_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = Parser(prog="scripts/bench.sh tower", description="Measure an image tower on a CPU.")
    parser.add_argument("--backbone", default="photo")
    parser.add_argument("--sizes", type=_counts, default=(96, 128, 160, 224), help="pixels; default: 96,128,160,224")
    parser.add_argument("--batch", type=_count, default=32, help="images; default: 32")
    parser.add_argument("--repeats", type=_count, default=3, help="the best of so many counts; default: 3")
    return parser


def best_of(work: Callable[[], object], repeats: int) -> float:
    """Least seconds of this thread that a piece of work takes, after a first one that does not count."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return min(seconds[1:])


def step(encoder: Any, images: Tensor, dtype: torch.dtype | None) -> Callable[[], None]:
    """A training step of an encoder: forward, backward, fused AdamW."""
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=0.0, fused=True)

    def run() -> None:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            features = encoder(images)
        features.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def prediction(encoder: Any, images: Tensor, dtype: torch.dtype | None) -> Callable[[], None]:
    """A forward pass without gradients."""

    def run() -> None:
        with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            encoder(images)

    return run


def rows(clip_model: Any, size: int, batch: int, repeats: int) -> list[list[Any]]:
    """Rows of the table for one size of the input."""
    plain = torch.randn(batch, 3, size, size)
    result = []
    for layout, form in (("plain", torch.contiguous_format), ("channels last", torch.channels_last)):
        visual = copy.deepcopy(clip_model.visual).to(memory_format=form)
        images = plain.to(memory_format=form)
        stages = [number for number in FROZEN if number < max(1, len(stage_names(visual)))]
        for frozen in stages if layout == "channels last" else (0,):
            freeze_stages(visual, frozen)
            for name, dtype in TYPES.items():
                encoder = copy.deepcopy(visual)
                if name == PREDICTIONS:
                    hold_frozen_in_bf16(encoder)
                light = light_module(encoder, "norms-and-biases", torch.Generator().manual_seed(0))
                works = [step(trainable_copy(encoder), images, dtype), step(light, images, dtype)]
                works.append(prediction(encoder, images, torch.bfloat16 if name == PREDICTIONS else dtype))
                result.append([size, layout, name, frozen, *(f"{best_of(work, repeats):.2f}" for work in works)])
    return result


def main(argv: Sequence[str]) -> int:
    """Print the table. Returns the exit code."""
    args = make_parser().parse_args(argv)
    torch.set_num_threads(1)
    backbone = architecture(args.backbone)
    if wrong := [size for size in args.sizes if not backbone.reads((size, size))]:
        raise UserError(f"--sizes: {args.backbone} reads {backbone.sizes}, not {wrong[0]}; give another size")
    clip_model = load_clip(args.backbone)
    table = [row for size in args.sizes for row in rows(clip_model, size, args.batch, args.repeats)]
    headers = ["pixels", "memory", "type", "frozen stages", "Phase II step, s", "Phase I step, s", "prediction, s"]
    print(tabulate(table, headers, tablefmt="github", disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
