"""Tensors from files: read as data, dense, and no larger than what the file holds."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .forms import Form, Misfit
from .outside import broken_member, opened, plain_path

SMALL = 1 << 20  # numbers that a tensor may have whatever the file holds
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
Tensors = dict[str, Tensor]
Range = tuple[int, int]


@dataclass(frozen=True)
class Array(Form):
    """A tensor.

    Attributes:
        shape: Least and most of each dimension; None: any shape.
        dtypes: Its types.
    """

    shape: tuple[Range, ...] | None = None
    dtypes: tuple[torch.dtype, ...] = (*FLOATS, *WHOLE, torch.bool)

    def _expected(self) -> str:
        kind = {FLOATS: " of floats", WHOLE: " of whole numbers"}.get(self.dtypes, "")
        sides = [f"{low}" if low == high else f"{low} to {high}" for low, high in self.shape or ()]
        return f"a dense tensor{kind}" + ("" if self.shape is None else f" of shape ({', '.join(sides)})")

    def misfit(self, value: Any) -> Misfit:
        """The error of a value that is none; of a tensor without its numbers."""
        if not isinstance(value, Tensor):
            return super().misfit(value)
        reason = flaw(value) or f"is of shape {tuple(value.shape)} and {value.dtype}"
        return Misfit(f"{reason}; expected {self.expected}")

    def _takes(self, value: Any) -> bool:
        if not isinstance(value, Tensor) or flaw(value) or value.dtype not in self.dtypes:
            return False
        if self.shape is None:
            return True
        pairs = zip(value.shape, self.shape, strict=False)
        return value.dim() == len(self.shape) and all(low <= side <= high for side, (low, high) in pairs)


@dataclass(frozen=True)
class Finite(Array):
    """A tensor of floats of which none is NaN or infinite."""

    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32, torch.float16)

    def _takes(self, value: Any) -> bool:
        return super()._takes(value) and bool(value.isfinite().all())


INDEX, FINITE = Array(dtypes=WHOLE), Finite()


def floats(*shape: int | Range) -> Array:
    """A tensor of floats; a number stands for the one length that a dimension may have."""
    return Array(tuple(side if isinstance(side, tuple) else (side, side) for side in shape), FLOATS)


def flaw(tensor: Tensor) -> str:
    """What a tensor is that computing does not take as it is; empty if it is dense and there."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return "is sparse or nested"
    if tensor.is_quantized:
        return "is quantized"
    if tensor.is_meta:
        return "has no content"
    if tensor.numel() > max(SMALL, tensor.untyped_storage().nbytes() // max(1, tensor.element_size())):
        return f"claims {tensor.numel():,} numbers, and the file holds less"
    return ""


def load_saved(path: Path, device: str | torch.device = "cpu", mapped: bool = False) -> Any:
    """Read what `torch.save` has written, as data. Checksums are compared.

    Args:
        path: The file.
        device: Where tensors go.
        mapped: Whether the file is mapped into memory, not read.

    Returns:
        Tensors, dense ones, and plain containers.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged, or holds anything else.
    """
    with opened(path) as file:
        if broken := broken_member(file):
            raise ValueError(f"is damaged (checksum of {broken})")
        source: Any = path if mapped else file
        try:
            content = torch.load(source, map_location=device, weights_only=True, mmap=mapped)
        except (OSError, MemoryError):
            raise
        except (Exception, pickle.UnpicklingError) as error:  # torch raises any exception on damaged bytes
            reason = next(iter(str(error).split("\n")), "")[:100] or type(error).__name__
            raise ValueError(f"not a checkpoint of tensors alone ({reason})") from error
    for name, tensor in _tensors_in(content):
        if reason := flaw(tensor):
            raise ValueError(f"{name or 'the tensor'} {reason}")
    return content


def _tensors_in(content: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors of nested containers, with their names."""
    waiting, seen = [("", content)], set[int]()
    while waiting:
        name, part = waiting.pop()
        if isinstance(part, Tensor):
            yield name, part
        elif isinstance(part, (Mapping, list, tuple, set)) and id(part) not in seen:
            seen.add(id(part))
            pairs = part.items() if isinstance(part, Mapping) else enumerate(part)
            waiting += [(f"{name}.{key}"[-200:].lstrip("."), value) for key, value in pairs]


def load_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Read a file of safetensors.

    Returns:
        Tensors by name, on the CPU, and the texts that the file has beside them.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    with plain_path(path) as named:
        try:
            with safe_open(named, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (SafetensorError, KeyError, AttributeError, ValueError, TypeError, RuntimeError) as error:
            raise ValueError(str(error) or type(error).__name__) from error
