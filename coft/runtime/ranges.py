"""Which numbers a config key takes, said before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from coft.runtime.errors import UserError


def check_positive(cfg: Any, *keys: str) -> None:
    """Refuse counts below 1.

    Args:
        cfg: The config.
        *keys: Full names, such as "TRAINER.UPL.ENSEMBLE".

    Raises:
        UserError: Naming the first such key.
    """
    _check(cfg, keys, lambda value: value >= 1, "at least 1")


def check_not_negative(cfg: Any, *keys: str) -> None:
    """Refuse numbers below 0. Arguments and errors are those of `check_positive`."""
    _check(cfg, keys, lambda value: value >= 0, "0 or more")


def check_above_zero(cfg: Any, *keys: str) -> None:
    """Refuse what one cannot divide by. Arguments and errors are those of `check_positive`."""
    _check(cfg, keys, lambda value: value > 0, "a number above 0")


def check_share(cfg: Any, *keys: str) -> None:
    """Refuse what is no share. Arguments and errors are those of `check_positive`."""
    _check(cfg, keys, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _check(cfg: Any, keys: tuple[str, ...], fits: Callable[[float], bool], expected: str) -> None:
    for key in keys:
        value = reduce(lambda node, part: node[part], key.split("."), cfg)
        if not fits(value):
            raise UserError(f"{key} is {value}; expected {expected}")
