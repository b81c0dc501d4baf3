"""Cache of the outputs of an image encoder's frozen first stages, so that repeated images skip these stages.

An encoder made skippable (`make_skippable`) takes either images or the outputs of its frozen stages. Encoders with the
same frozen stages, such as the two peers, share the cached outputs.
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

CHUNK = 16  # images per pass of the frozen stages; the bank pads to a multiple, since exact bits depend on it
MAX_BYTES = 1 << 29  # upper bound of the cached outputs, in bytes
COLOURS = 3  # channels of an image; outputs of the frozen stages have another number, which tells them apart

Map = Callable[[Callable[[str], Any], Sequence[str]], dict[str, Any]]


class _State(threading.local):
    """State of this thread's forward passes.

    Attributes:
        skips: Whether frozen stages are skipped, since the input is their output.
        ends: Whether a pass ends after the last frozen stage.
    """

    skips = False
    ends = False


_state = _State()


class _FrozenStagesDone(Exception):
    """Exception that ends a forward pass and carries the output of the last frozen stage."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


class _SkippableStage(nn.Module):
    """Frozen part of an encoder. It returns its input if this is already the output of the frozen stages."""

    is_last = False

    def forward(self, x: Tensor) -> Tensor:
        if _state.skips:
            return x
        output: Tensor = super().forward(x)
        if self.is_last and _state.ends:
            raise _FrozenStagesDone(output)
        return output


class _StagedEncoder(nn.Module):
    """Encoder that takes images or the outputs of its frozen stages, and tells them apart by the number of channels."""

    def forward(self, x: Tensor) -> Tensor:
        _state.skips = x.shape[1] != COLOURS
        try:
            output: Tensor = super().forward(x)
            return output
        finally:
            _state.skips = False


def frozen_parts(module: nn.Module, frozen: frozenset[str], prefix: str = "") -> Iterator[nn.Module]:
    """Yield the largest submodules whose parameters are all frozen, in the order of definition."""
    for name, child in module.named_children():
        names = {f"{prefix}{name}.{parameter}" for parameter, _ in child.named_parameters()}
        if names and names <= frozen:
            yield child
        elif names & frozen:
            yield from frozen_parts(child, frozen, f"{prefix}{name}.")


def _mix_in(module: nn.Module, kind: type[nn.Module]) -> None:
    module.__class__ = type(f"{kind.__name__}{type(module).__name__}", (kind, type(module)), {})


@torch.no_grad()
def make_skippable(visual: nn.Module, size: int) -> bool:
    """Let an encoder, and later copies of it, take outputs of its frozen stages in place of images.

    Args:
        visual: Image encoder in evaluation mode, with frozen stages marked by `stages.freeze_stages`.
        size: Height and width of images.

    Returns:
        Whether this is possible: the encoder has frozen stages, and no other operation comes before or between them.
        If not, the encoder is unchanged. Both ways are compared on a probe.
    """
    parts = list(frozen_parts(visual, stays_frozen(visual))) if len(members_of(visual)) == 1 else []
    if not parts or isinstance(visual, _StagedEncoder):
        return isinstance(visual, _StagedEncoder)
    before = [(module, type(module)) for module in (*parts, visual)]
    for part in parts:
        _mix_in(part, _SkippableStage)
    parts[-1].is_last = True  # type: ignore[assignment]
    _mix_in(visual, _StagedEncoder)
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
    """Compute the outputs of a skippable encoder's frozen stages for images (n, 3, size, size). Shape (n, ...)."""
    _state.ends = True
    try:
        visual(images)
    except _FrozenStagesDone as reached:
        return reached.output
    finally:
        _state.ends = False
    raise RuntimeError("the frozen stages were not reached")


def share_stages(encoders: Sequence[nn.Module]) -> bool:
    """Return whether two or more encoders are skippable and have the same weights in their frozen stages."""
    if len(encoders) < 2 or not all(isinstance(encoder, _StagedEncoder) for encoder in encoders):
        return False
    parts = [[part for part in encoder.modules() if isinstance(part, _SkippableStage)] for encoder in encoders]
    states = [[value for part in of_one for value in part.state_dict().values()] for of_one in parts]
    return all(len(state) == len(states[0]) and all(map(torch.equal, state, states[0])) for state in states[1:])


def through_stages(visual: nn.Module, images: Tensor, run: Map | None = None) -> Tensor:
    """Compute outputs of the frozen stages, `CHUNK` images at a time, in the precision of the active autocast.

    Args:
        visual: A skippable encoder.
        images: Shape (n, 3, size, size).
        run: Maps a function over names in parallel, like `Parallel.map_without_gradients`; None uses this thread alone.

    Returns:
        Outputs of the last frozen stage. Shape (n, channels, height, width).
    """
    parts = {str(number): part for number, part in enumerate(images.split(CHUNK))}

    def compute(name: str) -> Tensor:
        return frozen_output(visual, parts[name].contiguous(memory_format=torch.channels_last))

    outputs = {name: compute(name) for name in parts} if run is None else run(compute, list(parts))
    return torch.cat([outputs[name] for name in parts])


class FrozenBank:
    """Cache of frozen-stage outputs, by the content of the images. The oldest outputs are dropped first.

    Args:
        visual: A skippable encoder.
        run: Maps a function over names in parallel, like `Parallel.map_without_gradients`.
        max_bytes: Capacity in bytes.
    """

    def __init__(self, visual: nn.Module, run: Map, max_bytes: int = MAX_BYTES) -> None:
        self.visual, self.run, self.max_bytes = visual, run, max_bytes
        self.kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self.bytes = 0
        self._lock = threading.Lock()

    def outputs(self, images: Tensor, alone: bool = False) -> Tensor:
        """Return the outputs of the frozen stages, in the precision of the active autocast.

        Args:
            images: Images on the CPU. Shape (..., 3, size, size).
            alone: Whether this thread computes missing outputs alone. Otherwise several threads do.

        Returns:
            Outputs, cached or new. Shape (..., channels, height, width).
        """
        flat = images.flatten(0, -4)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        keys = [_digest(image, dtype) for image in flat]
        with self._lock:
            outputs = {key: self.kept[key] for key in keys if key in self.kept}
        missing = {key: row for row, key in enumerate(keys) if key not in outputs}
        if missing:
            outputs |= self._compute(flat, missing, alone)
        rows = torch.stack([outputs[key] for key in keys]).contiguous(memory_format=torch.channels_last)
        return rows if flat.shape == images.shape else rows.unflatten(0, images.shape[:-3])

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
        while self.bytes > self.max_bytes and self.kept:
            self.bytes -= self.kept.popitem(last=False)[1].nbytes


def _digest(image: Tensor, dtype: torch.dtype | None) -> bytes:
    content = hashlib.sha256(str(dtype).encode())  # SHA-256 has hardware support on most machines
    content.update(image.contiguous().numpy().data)
    return content.digest()
