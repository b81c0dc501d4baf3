"""Annotation files that splits are made from: texts and MATLAB files that name images and their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coft.core import forms
from coft.core.errors import UserError
from coft.core.forms import List, PathText, whole
from coft.core.outside import opened, read_text

from .base import MOST_ROWS, Row, within

AMISS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # where a file is of another layout


def read_lines(path: Path) -> list[list[str]]:
    """The lines of an annotation file, split at blanks. Empty lines are left out.

    Raises:
        UserError: If the file cannot be read as text.
    """
    try:
        return [line.split() for line in read_text(path).split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from error


def read_mat(path: Path) -> dict[str, Any]:
    """The variables of a MATLAB file.

    Raises:
        UserError: If the file cannot be read as one.
    """
    from scipy.io import loadmat

    try:
        with opened(path) as file:
            return loadmat(file, squeeze_me=True)
    except Exception as error:  # SciPy's reader raises whatever a damaged number leads to
        raise UserError(f"{path} cannot be read as a MATLAB file ({error}); fetch it again") from error


def read_rows(path: Path, names: Sequence[str], entries: Callable[[], Iterable[tuple[Any, Any]]]) -> list[Row]:
    """Rows that an annotation file has: images within the data set, of its classes.

    Args:
        path: The file, for the error message.
        names: Class names by label.
        entries: Gives paths of images with names of their classes, or with numbers of them, from 1.

    Raises:
        UserError: If the file has another layout, or names no image.
    """
    number_of = {name: number for number, name in enumerate(names, start=1)}
    form = List(forms.Row((PathText(), whole(1, len(names)))), least=1, most=MOST_ROWS)
    try:
        pairs = [(image, _number(of, number_of)) for image, of in entries()]
        form.check(pairs)
        return [within(image, number - 1, names[number - 1]) for image, number in pairs]
    except AMISS as error:
        what = f"no {error} in it" if isinstance(error, KeyError) else error
        raise UserError(
            f"{path}: expected images and their classes, of which there are {len(names)} ({what}); fetch it again"
        ) from error


def _number(of: Any, number_of: Mapping[str, int]) -> int:
    """The number of a class, by its name or as any kind of number, as MATLAB has them.

    Raises:
        ValueError: If there is no class of this name, or the number is no whole one.
    """
    if isinstance(of, str):
        if of not in number_of:
            raise ValueError(f"{of!r:.80} is no class")
        return number_of[of]
    if int(of) != of:
        raise ValueError(f"{of} is no whole number")
    return int(of)
