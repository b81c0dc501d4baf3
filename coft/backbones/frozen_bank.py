"""Outputs of the frozen first stages of an image encoder, computed once for an image that is seen again.

An encoder whose stages are `skippable` takes either images or what its frozen stages made of them. Encoders that share
these stages, as peers do, share the outputs.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coft.backbones.joint import members_of
from coft.backbones.stages import stays_frozen

CHUNK = 8  # images that go through the frozen stages at a time; for the bank always so many: bits depend on it
MOST_BYTES = 1 << 29  # that are kept
COLOURS = 3  # channels of an image; a stage's output has others

Map = Callable[[Callable[[str], Any], Sequence[str], str], dict[str, Any]]


class _State(threading.local):
    """What encoders do in this thread: frozen stages are skipped, or a pass ends behind them."""

    skips = False
    ends = False


_state = _State()


class _Reached(Exception):
    """Ends a forward pass."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


class _Skippable(nn.Module):
    """A frozen part of an encoder, which passes on what has gone through it already."""

    is_last = False

    def forward(self, x: Tensor) -> Tensor:
        if _state.skips:
            return x
        output: Tensor = super().forward(x)
        if self.is_last and _state.ends:
            raise _Reached(output)
        return output


class _Staged(nn.Module):
    """An encoder of images, or of what its frozen stages made of them."""

    def forward(self, x: Tensor) -> Tensor:
        _state.skips = x.shape[1] != COLOURS
        try:
            output: Tensor = super().forward(x)
            return output
        finally:
            _state.skips = False


def frozen_parts(module: nn.Module, frozen: frozenset[str], prefix: str = "") -> Iterator[nn.Module]:
    """The largest parts of an encoder all of whose parameters are frozen, in the order of its definition."""
    for name, child in module.named_children():
        names = {f"{prefix}{name}.{parameter}" for parameter, _ in child.named_parameters()}
        if names and names <= frozen:
            yield child
        elif names & frozen:
            yield from frozen_parts(child, frozen, f"{prefix}{name}.")


def _become(module: nn.Module, kind: type[nn.Module]) -> None:
    module.__class__ = type(f"{kind.__name__}{type(module).__name__}", (kind, type(module)), {})


@torch.no_grad()
def make_skippable(visual: nn.Module, size: int) -> bool:
    """Let an encoder, and copies that are made of it, take outputs of its frozen stages in place of images.

    Args:
        visual: Image encoder in evaluation mode, whose frozen stages are marked.
        size: Height and width of images.

    Returns:
        Whether it does: it has frozen stages, and nothing else happens before or between them.
    """
    parts = list(frozen_parts(visual, stays_frozen(visual))) if len(members_of(visual)) == 1 else []
    if not parts or isinstance(visual, _Staged):
        return isinstance(visual, _Staged)
    before = [(module, type(module)) for module in (*parts, visual)]
    for part in parts:
        _become(part, _Skippable)
    parts[-1].is_last = True  # type: ignore[assignment]
    _become(visual, _Staged)
    weight = next(visual.parameters())
    probe = torch.linspace(-1, 1, 2 * COLOURS * size**2, device=weight.device).reshape(2, COLOURS, size, size)
    try:
        output = frozen_output(visual, probe)
        works = output.shape[1] != COLOURS and torch.equal(visual(output), visual(probe))
    except (RuntimeError, ValueError):
        works = False
    if not works:
        for module, kind in before:
            module.__class__ = kind
    return works


@torch.no_grad()
def frozen_output(visual: nn.Module, images: Tensor) -> Tensor:
    """What the frozen stages of a skippable encoder make of images (n, 3, size, size). Shape (n, ...)."""
    _state.ends = True
    try:
        visual(images)
    except _Reached as reached:
        return reached.output
    finally:
        _state.ends = False
    raise RuntimeError("the frozen stages were not reached")


def share_stages(encoders: Sequence[nn.Module]) -> bool:
    """Whether several encoders take outputs of frozen stages, and have the same ones."""
    if len(encoders) < 2 or not all(isinstance(encoder, _Staged) for encoder in encoders):
        return False
    states = [[value for part in _skippable(encoder) for value in part.state_dict().values()] for encoder in encoders]
    return all(len(state) == len(states[0]) and all(map(torch.equal, state, states[0])) for state in states[1:])


def _skippable(encoder: nn.Module) -> list[nn.Module]:
    return [module for module in encoder.modules() if isinstance(module, _Skippable)]


def through_stages(visual: nn.Module, images: Tensor, run: Map | None = None) -> Tensor:
    """What frozen stages make of images, `CHUNK` at a time, in the precision of the autocast this is called in.

    Args:
        visual: A skippable encoder.
        images: Shape (n, 3, size, size).
        run: Calls a function for several names at the same time, as `Parallel.map_without_gradients` does; without it,
            this thread works alone.

    Returns:
        Shape (n, channels, height, width).
    """
    parts = {str(number): part for number, part in enumerate(images.split(CHUNK))}

    def compute(name: str) -> Tensor:
        return frozen_output(visual, parts[name].contiguous(memory_format=torch.channels_last))

    kind = images.device.type
    outputs = {name: compute(name) for name in parts} if run is None else run(compute, list(parts), kind)
    return torch.cat([outputs[name] for name in parts])


class FrozenBank:
    """Keeps outputs of frozen stages by the contents of the images, as many as there is room for.

    Args:
        visual: A skippable encoder.
        run: Calls a function for several names at the same time, as `Parallel.map_without_gradients` does.
        most_bytes: That are kept; the oldest outputs go.
    """

    def __init__(self, visual: nn.Module, run: Map, most_bytes: int = MOST_BYTES) -> None:
        self.visual, self.run, self.most_bytes = visual, run, most_bytes
        self.kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self.bytes = 0
        self._lock = threading.Lock()

    def outputs(self, images: Tensor, alone: bool = False) -> Tensor:
        """Outputs of the frozen stages, in the precision of the autocast this is called in.

        Args:
            images: On the CPU. Shape (..., 3, size, size).
            alone: Whether this thread computes what is missing; else several do.

        Returns:
            Shape (..., channels, height, width).
        """
        flat = images.flatten(0, -4)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        keys = [_digest(image, dtype) for image in flat]
        outputs = self._kept(keys)
        missing = {key: row for row, key in enumerate(keys) if key not in outputs}
        if missing:
            outputs |= self._compute(flat, missing, alone)
        rows = torch.stack([outputs[key] for key in keys]).contiguous(memory_format=torch.channels_last)
        return rows if flat.shape == images.shape else rows.unflatten(0, images.shape[:-3])

    def _kept(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        with self._lock:
            return {key: self.kept[key] for key in keys if key in self.kept}

    def _compute(self, images: Tensor, missing: dict[bytes, int], alone: bool) -> dict[bytes, Tensor]:
        new = images[list(missing.values())]
        padded = torch.cat([new, new[:1].expand(-len(new) % CHUNK, -1, -1, -1)])
        rows = through_stages(self.visual, padded, None if alone else self.run)
        outputs = dict(zip(missing, (row.clone() for row in rows), strict=False))
        with self._lock:
            for key, output in outputs.items():
                self._keep(key, output)
        return outputs

    def _keep(self, key: bytes, output: Tensor) -> None:
        if key in self.kept:
            return
        self.kept[key] = output
        self.bytes += output.nbytes
        while self.bytes > self.most_bytes and self.kept:
            self.bytes -= self.kept.popitem(last=False)[1].nbytes


def _digest(image: Tensor, dtype: torch.dtype | None) -> bytes:
    content = hashlib.sha256(str(dtype).encode())  # in hardware on most machines
    content.update(image.contiguous().numpy().data)
    return content.digest()
