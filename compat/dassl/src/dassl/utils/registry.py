"""Registries of named classes and functions, and suggestions for mistyped names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from typing import Any

__all__ = ["Registry", "check_availability"]


class Registry:
    """Registry of objects by their `__name__`.

    Args:
        name: Name of the registry, for messages.

    Example:
        >>> TRAINERS = Registry("TRAINER")
        >>> @TRAINERS.register()
        ... class MyTrainer: ...
        >>> TRAINERS.get("MyTrainer") is MyTrainer
        True
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Register an object; without one, return a decorator that registers.

        Args:
            obj: Class or function to register.
            force: Whether to replace an object of the same name.

        Raises:
            KeyError: If the name is taken.
        """
        return partial(self._add, force=force) if obj is None else self._add(obj, force)

    def _add(self, obj: Any, force: bool) -> Any:
        name = obj.__name__
        if name in self._objects and not force:
            raise KeyError(f'An object named "{name}" was already registered in "{self._name}" registry')
        self._objects[name] = obj
        return obj

    def get(self, name: str) -> Any:
        """Return the object with a name.

        Raises:
            KeyError: If there is none.
        """
        if name not in self._objects:
            raise KeyError(f'Object name "{name}" does not exist in "{self._name}" registry')
        return self._objects[name]

    def registered_names(self) -> list[str]:
        """Return all names in the order of registration."""
        return list(self._objects)

    def build(self, name: str, cfg: Any, **options: Any) -> Any:
        """Call the object registered under a name with a config, and print the name if the config is VERBOSE.

        Raises:
            ValueError: If the name is unknown.
        """
        check_availability(name, self.registered_names())
        if cfg.VERBOSE:
            print(f"Loading {self._name.lower()}: {name}")
        return self.get(name)(cfg, **options)


def check_availability(requested: str, available: Sequence[str]) -> None:
    """Check that a name is in a list.

    Raises:
        ValueError: If it is not; the message has the list and the most similar name.
    """
    if requested not in available:
        guess = max(available, key=lambda name: difflib.SequenceMatcher(None, requested, name).ratio(), default=None)
        raise ValueError(
            f"The requested one is expected to belong to {list(available)}, "
            f"but got [{requested}] (do you mean [{guess}]?)"
        )
