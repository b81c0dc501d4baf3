"""Safe loading of tensors from files: no code is executed, and tensors are dense and no larger than their file data."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import first_line
from .schemas import Schema, SchemaError
from .untrusted import broken_member, open_file, plain_path

SMALL = 1 << 20  # elements that a tensor may have even if the file holds fewer (an expanded tensor)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
Tensors = dict[str, Tensor]
Range = tuple[int, int]


@dataclass(frozen=True)
class Array(Schema):
    """A tensor.

    Attributes:
        shape: Minimum and maximum of each dimension; None for any shape.
        dtypes: Valid dtypes.
    """

    shape: tuple[Range, ...] | None = None
    dtypes: tuple[torch.dtype, ...] = (*FLOATS, *WHOLE, torch.bool)

    def __str__(self) -> str:
        kind = {FLOATS: " of floats", WHOLE: " of whole numbers"}.get(self.dtypes, "")
        sides = [f"{low}" if low == high else f"{low} to {high}" for low, high in self.shape or ()]
        return f"a dense tensor{kind}" + ("" if self.shape is None else f" of shape ({', '.join(sides)})")

    def misfit(self, value: Any) -> SchemaError:
        """Return the error of a value that does not match. It shows no elements of a tensor."""
        if not isinstance(value, Tensor):
            return super().misfit(value)
        reason = defect(value) or f"is of shape {tuple(value.shape)} and {value.dtype}"
        return SchemaError(f"{reason}; expected {self}")

    def _matches(self, value: Any) -> bool:
        if not isinstance(value, Tensor) or defect(value) or value.dtype not in self.dtypes:
            return False
        if self.shape is None:
            return True
        pairs = zip(value.shape, self.shape, strict=False)
        return value.dim() == len(self.shape) and all(low <= side <= high for side, (low, high) in pairs)


@dataclass(frozen=True)
class Finite(Array):
    """A tensor of floats without NaN or infinity."""

    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32, torch.float16)

    def _matches(self, value: Any) -> bool:
        return super()._matches(value) and bool(value.isfinite().all())


INDEX, FINITE = Array(dtypes=WHOLE), Finite()


def floats(*shape: int | Range) -> Array:
    """Return the form of a tensor of floats; `shape` has a length, or minimum and maximum, for each dimension."""
    return Array(tuple(side if isinstance(side, tuple) else (side, side) for side in shape), FLOATS)


def defect(tensor: Tensor) -> str:
    """Describe why a tensor cannot be used in computations: sparse, without data ...; empty if it can."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return "is sparse or nested"
    if tensor.is_quantized:
        return "is quantized"
    if tensor.is_meta:
        return "has no content"
    if tensor.numel() > max(SMALL, tensor.untyped_storage().nbytes() // max(1, tensor.element_size())):
        return f"claims {tensor.numel():,} numbers, and the file holds less"
    return ""


def load_saved(path: Path, mapped: bool = False) -> Any:
    """Load a file written by `torch.save`, with `weights_only`. Its checksums are verified.

    Args:
        path: The file.
        mapped: Whether to map the file into memory instead of reading it.

    Returns:
        Dense tensors, on the CPU, and plain containers.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged, or holds other objects.
    """
    with open_file(path) as file:
        if broken := broken_member(file):
            raise ValueError(f"is damaged (checksum of {broken})")
        source: Any = path if mapped else file
        try:
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
        except (OSError, MemoryError):
            raise
        except (Exception, pickle.UnpicklingError) as error:  # torch may raise any exception for damaged data
            raise ValueError(f"not a checkpoint of tensors alone ({first_line(error, 100)})") from error
    for name, tensor in _tensors_in(content):
        if reason := defect(tensor):
            raise ValueError(f"{name or 'the tensor'} {reason}")
    return content


def _tensors_in(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in nested containers, with their names."""
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
    """Load a safetensors file.

    Returns:
        Tensors by name, on the CPU, and the metadata of the file.

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
