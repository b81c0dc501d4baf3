"""Cost of an image encoder's step by kind of operation, against a roofline: bash scripts/bench.sh --photo.

Measured on one thread in CPU seconds of that thread, so that other work on the machine matters little. The roofline is
the least time of a part: its operations at the speed of the fastest matrix product, or its bytes at that of the fastest
copy, whichever is longer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from clip.model import CLIP
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from coft.backbones.layout import optimize_layout
from coft.backbones.load import architecture, load_clip
from coft.backbones.stages import freeze_stages
from coft.backbones.visual_tuning import light_module
from coft.core.errors import Parser
from coft.core.exit_codes import guarded
from coft.core.precision import PRECISIONS, faster_precision, step_attention
from coft.method.peer import trainable_copy

RANDOM = "ViT-B/32"  # measured with random weights
PLACES = {"photo": (128, 224), "embedded": (0,), RANDOM: (224,)}  # pixels for each backbone; 0: its own resolution
STEPS, FORWARD = ("Phase II step", "Phase I step"), "prediction"
DENSE, DEPTHWISE, PRODUCTS, REST = "dense convolutions", "depthwise convolutions", "matrix products", "the rest"
KINDS = {
    "norms": ("batch_norm", "layer_norm", "group_norm"),
    "activations": ("gelu", "relu", "silu", "sigmoid", "softmax", "hardswish"),
    PRODUCTS: ("mm", "addmm", "bmm", "baddbmm", "attention"),
}
PARTS = (DENSE, DEPTHWISE, PRODUCTS, "norms", "activations", REST)


@dataclass
class Cost:
    """Cost of a part of a step.

    Attributes:
        seconds: Measured seconds.
        least: Seconds by the roofline.
    """

    seconds: float = 0.0
    least: float = 0.0


@dataclass(frozen=True)
class Limits:
    """Peak performance of one thread of this machine.

    Attributes:
        operations: Floating-point operations per second of a large matrix product, by dtype.
        bytes: Bytes read and written per second by a large copy.
    """

    operations: Mapping[torch.dtype, float]
    bytes: float


def fastest(work: Callable[[], object], repeats: int, clock: Callable[[], float] = time.thread_time) -> float:
    """Return the least seconds over `repeats` calls, after a warm-up call."""
    seconds = []
    for _ in range(repeats + 1):
        start = clock()
        work()
        seconds.append(clock() - start)
    return min(seconds[1:])


def limits() -> Limits:
    """Measure the limits, with square matrices."""
    operations = {}
    size, repeats = 2048, 5
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.randn(size, size).to(dtype)
        operations[dtype] = 2 * size**3 / fastest(partial(torch.mm, matrix, matrix), repeats)
    source = torch.empty(8 * size * size).fill_(1.0)
    target = torch.empty_like(source)
    return Limits(operations, 2 * source.nbytes / fastest(partial(target.copy_, source), repeats))


class Meter(TorchDispatchMode):
    """Dispatch mode that times each operation within its context, the backward pass included.

    Args:
        machine: Limits for the roofline.
    """

    def __init__(self, machine: Limits) -> None:
        super().__init__()
        self.machine, self.costs = machine, defaultdict[str, Cost](Cost)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = time.thread_time()
        result = func(*args, **(kwargs or {}))
        seconds = time.thread_time() - start
        cost = self.costs[kind_of(func, args)]
        cost.seconds += seconds
        cost.least += self._least(func, args, kwargs or {}, result)
        return result

    def _least(self, func: Any, args: Any, kwargs: Any, result: Any) -> float:
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if not tensors or func.is_view:
            return 0.0
        operations = operations_of(func, args, kwargs, result)
        speed = self.machine.operations.get(tensors[0].dtype, self.machine.operations[torch.float32])
        return max(operations / speed, sum(tensor.nbytes for tensor in tensors) / self.machine.bytes)


def operations_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Count floating-point operations; 0 if they are negligible compared with the bytes."""
    if func._overloadpacket is torch.ops.aten.convolution:
        return int(2 * result.numel() * args[1][0].numel())
    if func._overloadpacket is torch.ops.aten.convolution_backward:  # torch counts a depthwise one as if it were dense
        gradient, weight, mask = args[0], args[2], args[10]
        return int(2 * gradient.numel() * weight[0].numel() * sum(mask[:2]))
    count = flop_registry.get(func._overloadpacket)
    return int(count(*args, **kwargs, out_val=result)) if count else 0


def kind_of(func: Any, args: Sequence[Any]) -> str:
    """Return the part of a step, one of `PARTS`, that an operation belongs to."""
    name = str(func._overloadpacket).removeprefix("aten.")
    if name.startswith("convolution"):
        backward = name.endswith("backward")
        weight, groups = (args[2], args[9]) if backward else (args[1], args[8])
        return DEPTHWISE if groups == len(weight) > 1 else DENSE
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), REST)


@dataclass(frozen=True)
class Encoder:
    """An image encoder, set up as in a run.

    Attributes:
        visual: Image encoder of a CLIP.
        images: Batch of images. Shape (n, 3, pixels, pixels).
        precision: Name of a precision, a key of `PRECISIONS`.
    """

    visual: Any
    images: Tensor
    precision: str

    def workloads(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield name and function of a step of each phase, and of a prediction."""
        light = light_module(self.visual, "auto", torch.Generator().manual_seed(0))
        trained = (trainable_copy(self.visual), light)
        for name, encoder in zip(STEPS, trained, strict=True):
            yield name, self._step(encoder)
        yield FORWARD, self._prediction

    def _step(self, encoder: Any) -> Callable[[], None]:
        optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=0.0, fused=True)

        def run() -> None:
            with self._cast(PRECISIONS[self.precision]), step_attention(encoder, "cpu", PRECISIONS[self.precision]):
                features = encoder(self.images)
            features.float().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    def _prediction(self) -> None:
        dtype = PRECISIONS[self.precision]
        with torch.no_grad(), self._cast(dtype):
            self.visual(self.images)

    def _cast(self, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", dtype=dtype, enabled=dtype is not None)


def clip_named(backbone: str) -> nn.Module:
    """Load a CLIP, or build it with random weights if it is `RANDOM`."""
    if backbone != RANDOM:
        return load_clip(backbone)
    torch.manual_seed(0)
    return CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12).float().eval().requires_grad_(False)


def encoder_of(backbone: str, pixels: int, batch: int, precision: str = "", laid_out: bool = True) -> Encoder:
    """Build an encoder as a run does, with frozen first stages and, unless one is given, the faster precision."""
    network = architecture(backbone)
    visual: Any = clip_named(backbone).visual
    freeze_stages(visual, network.frozen_stages)
    chosen = precision or faster_precision("cpu")
    if laid_out:
        optimize_layout(visual, network.resolution)
    side = pixels or network.resolution
    return Encoder(visual, torch.randn(batch, 3, side, side), chosen)


def parts(backbone: str, pixels: int, batch: int, machine: Limits) -> Iterator[list[Any]]:
    """Yield rows of the first table: for each work, seconds by part, and the roofline's share of them."""
    encoder = encoder_of(backbone, pixels, batch)
    for name, work in encoder.workloads():
        work()
        with Meter(machine) as meter:
            work()
        whole = Cost(*(sum(getattr(cost, number) for cost in meter.costs.values()) for number in ("seconds", "least")))
        place = [backbone, encoder.images.shape[-1], encoder.precision, name]
        yield place + [_share(cost) for cost in (whole, *(meter.costs[kind] for kind in PARTS))]


def _share(cost: Cost) -> str:
    return f"{cost.seconds:.3f} ({100 * cost.least / cost.seconds:.0f} %)" if cost.seconds > 5e-4 else "-"


def alternatives(pixels: int, batch: int, repeats: int) -> Iterator[list[Any]]:
    """Yield rows of the second table: seconds of the workloads of `photo`, unchanged and with one change each."""
    build = partial(encoder_of, "photo", pixels, batch)
    yield ["as it is", *_seconds(build(), repeats)]
    yield ["PyTorch's layers", *_seconds(build(laid_out=False), repeats)]
    yield ["fp32", *_seconds(build(precision="fp32"), repeats)]
    with torch.backends.mkldnn.flags(enabled=False):
        yield ["without oneDNN", *_seconds(build(), repeats)]
    compiled = build()
    compiled.visual.trunk.compile()
    yield ["compiled by inductor", *_seconds(compiled, repeats)]
    torch.set_num_threads(2)
    yield ["two threads, by the clock", *_seconds(build(), repeats, time.perf_counter)]
    torch.set_num_threads(1)


def _seconds(encoder: Encoder, repeats: int, clock: Callable[[], float] = time.thread_time) -> list[str]:
    return [f"{fastest(work, repeats, clock):.3f}" for _, work in encoder.workloads()]


def make_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = Parser(prog="scripts/bench.sh --photo", description="Measure steps of image encoders on a CPU, by part.")
    parser.add_argument("--backbones", default=",".join(PLACES), help=f"default: {','.join(PLACES)}")
    parser.add_argument("--batch", type=int, default=32, help="images; default: 32")
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many counts; default: 3")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the limits and both tables. Returns the exit code."""
    args = make_parser().parse_args(argv)
    torch.set_num_threads(1)
    machine = limits()
    speeds = ", ".join(f"{str(dtype)[6:]} {speed / 1e9:.0f} GFLOP/s" for dtype, speed in machine.operations.items())
    print(f"One thread: matrix products of {speeds}; memory {machine.bytes / 1e9:.1f} GB/s\n")
    names = args.backbones.split(",")
    rows = [row for name in names for size in PLACES.get(name, (0,)) for row in parts(name, size, args.batch, machine)]
    headers = ["backbone", "pixels", "precision", "work", "all, s (of the roofline)", *PARTS]
    print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))
    if "photo" in names:
        headers = [f"photo, {PLACES['photo'][0]} pixels", *(f"{name}, s" for name in (*STEPS, FORWARD))]
        table = alternatives(PLACES["photo"][0], args.batch, args.repeats)
        print(f"\n{tabulate(table, headers, tablefmt='pipe', disable_numparse=True)}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
