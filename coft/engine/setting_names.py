"""Settings of a method by the names that a config has for them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from coft.core.experiment import flatten


def by_config_name(section: str, settings: Any) -> dict[str, Any]:
    """Settings of a method by their full names.

    Args:
        section: Of the method, such as "COFT".
        settings: What it declares, with values.
    """
    keys = flatten(asdict(settings), f"TRAINER.{section}")
    return {".".join(part.rstrip("_").upper() for part in key.split(".")): value for key, value in keys.items()}


def not_default(section: str, settings: Any) -> dict[str, Any]:
    """Those settings that are others than the defaults, by their full names."""
    default = by_config_name(section, type(settings)())
    return {key: value for key, value in by_config_name(section, settings).items() if value != default[key]}
