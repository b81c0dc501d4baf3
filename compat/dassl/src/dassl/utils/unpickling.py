"""Safe unpickling of untrusted files: only plain containers, tensors and Datum are admitted, and no code can run.

Dassl's checkpoints hold pickled schedules and optimizers, CoOp's few-shot files hold pickled Datum objects. A pickle
names the functions and classes to call; only names in a fixed table are admitted.
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
    ("_codecs", "encode"),  # used for bytes in old protocols
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
    """A pickle that contains more than data; the message has the file and the reason."""


class PlainState:
    """Placeholder for a pickled schedule or optimizer, which keeps only its attributes."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


class DataUnpickler(pickle.Unpickler):
    """Unpickler of plain containers and Datum."""

    admitted = frozenset(_DATA)

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a name if the table admits it.

        Raises:
            UnsafePickleError: If it does not.
        """
        if (module, name) not in self.admitted:
            raise UnsafePickleError(f"it asks for {module}.{name}, which is not plain data")
        return super().find_class(module, name)


class Unpickler(DataUnpickler):
    """Unpickler of checkpoints, which also admits tensors, and reduces schedules and optimizers to their attributes.

    `torch.load` takes this module as its `pickle_module`, and uses its attributes `Unpickler` and `load`.
    """

    admitted = frozenset(_DATA | _TENSORS)

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a name if the table admits it; classes of schedules and optimizers become `PlainState`."""
        return PlainState if f"{module}.".startswith(_REDUCED) else super().find_class(module, name)


def load(file: IO[bytes], **options: Any) -> Any:
    """Unpickle with the interface of `pickle.load`, for the header of old checkpoints."""
    return Unpickler(file, **options).load()


def load_pickle(fpath: str | os.PathLike[str]) -> Any:
    """Read a pickle of plain containers and Datum, such as a few-shot split that CoOp wrote.

    Raises:
        UnsafePickleError: If it contains anything else, or is not a pickle.
    """
    try:
        with Path(fpath).open("rb") as file:
            return DataUnpickler(file).load()
    except FileNotFoundError:
        raise
    except Exception as error:  # a broken pickle may raise any exception
        raise refusal(fpath, error) from error


def refusal(fpath: str | os.PathLike[str], error: Exception) -> UnsafePickleError:
    """Build the error that says in one line why a file is not loaded."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UnsafePickleError(f"{os.fspath(fpath)} is not loaded: {reason}")


def plain(value: Any) -> Any:
    """Replace placeholders for schedules by their attributes, without the attribute `optimizer`."""
    if isinstance(value, PlainState):
        return {k: plain(v) for k, v in value.attributes.items() if k != "optimizer"}
    if type(value) is dict:
        return {k: plain(v) for k, v in value.items()}
    return value
