"""Pickles of others as data: a reader that admits plain containers, tensors and Datum, and nothing that could run.

Dassl's checkpoints hold pickled schedules and optimizers, CoOp's few-shot files hold pickled Datum objects. A pickle
names the functions and classes it wants called; here a fixed table answers, and any other name is refused.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import IO, Any

import torch

__all__ = ["UnsafePickleError", "load_pickle"]

_NUMBERS = ["bool", "int", "float", "complex"]
_BUILTINS = [*_NUMBERS, "bytearray", "bytes", "dict", "frozenset", "list", "set", "str", "tuple"]
_DATA = {
    *(("builtins", name) for name in _BUILTINS),
    *(("__builtin__", name) for name in _BUILTINS),
    *(("collections", name) for name in ("OrderedDict", "defaultdict", "Counter")),
    ("_codecs", "encode"),  # how old protocols write bytes
    ("dassl.data.datasets.base_dataset", "Datum"),
}
_TENSORS = {
    *(("torch._utils", f"_rebuild_{kind}") for kind in ("tensor", "tensor_v2", "parameter")),
    *(("torch", name) for name in ("Size", "device")),
    *(("torch", name) for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
}
_REDUCED = ("torch.optim.", "dassl.optim.")


class UnsafePickleError(pickle.UnpicklingError):
    """A pickle that asks for more than data; the message names the file and what it asked for."""


class PlainState:
    """Stands for a pickled schedule or optimizer, of which only the attributes are wanted."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


class DataUnpickler(pickle.Unpickler):
    """Unpickler of plain containers and Datum."""

    admitted = frozenset(_DATA)

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in the table.

        Raises:
            UnsafePickleError: If it is not there.
        """
        if (module, name) not in self.admitted:
            raise UnsafePickleError(f"it asks for {module}.{name}, which is not plain data")
        return super().find_class(module, name)


class Unpickler(DataUnpickler):
    """Unpickler of checkpoints: tensors as well, and schedules reduced to their attributes.

    `torch.load` takes this module for its `pickle_module` and looks for this name and for `load`.
    """

    admitted = frozenset(_DATA | _TENSORS)

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in the table; classes of schedules and optimizers are only stood for."""
        return PlainState if f"{module}.".startswith(_REDUCED) else super().find_class(module, name)


def load(file: IO[bytes], **options: Any) -> Any:
    """Unpickle as `pickle.load` does, for the header of old checkpoints."""
    return Unpickler(file, **options).load()


def load_pickle(fpath: str | os.PathLike[str]) -> Any:
    """Read a pickle of plain containers and Datum, such as a few-shot split that CoOp wrote.

    Raises:
        UnsafePickleError: If it asks for anything else, or is no pickle.
    """
    try:
        with Path(fpath).open("rb") as file:
            return DataUnpickler(file).load()
    except FileNotFoundError:
        raise
    except Exception as error:  # a broken pickle fails in any way
        raise refusal(fpath, error) from error


def refusal(fpath: str | os.PathLike[str], error: Exception) -> UnsafePickleError:
    """Say in one line why a file is not loaded."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UnsafePickleError(f"{os.fspath(fpath)} is not loaded: {reason}")


def plain(value: Any) -> Any:
    """Replace what stands for a schedule by its attributes, without the optimizer that it drove."""
    if isinstance(value, PlainState):
        return {k: plain(v) for k, v in value.attributes.items() if k != "optimizer"}
    if type(value) is dict:
        return {k: plain(v) for k, v in value.items()}
    return value
