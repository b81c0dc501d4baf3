"""Settings as a config has them."""

from __future__ import annotations

import dataclasses
from typing import Any


def key_of(field: dataclasses.Field[Any]) -> str:
    """Name of a setting in a config."""
    return field.name.rstrip("_").upper()


def is_group(field: dataclasses.Field[Any]) -> bool:
    """Whether a field holds other settings."""
    return field.default_factory is not dataclasses.MISSING


def defaults(cls: type) -> dict[str, Any]:
    """Defaults by key, nested."""
    return {
        key_of(f): defaults(f.default_factory) if is_group(f) else f.default  # type: ignore[arg-type]
        for f in dataclasses.fields(cls)
    }


def load(cls: type, tree: Any, section: str) -> Any:
    """Read a section of a config."""
    values = {
        f.name: load(f.default_factory, tree[key_of(f)], f"{section}.{key_of(f)}") if is_group(f) else tree[key_of(f)]  # type: ignore[arg-type]
        for f in dataclasses.fields(cls)
    }
    return cls(**values)
