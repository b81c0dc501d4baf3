"""Readers of annotation files, which list images and their classes as text or in MATLAB's format."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coft.core import schemas
from coft.core.errors import UserError
from coft.core.schemas import List, PathText, whole
from coft.core.untrusted import open_file, read_text

from .base import MOST_ROWS, Row, within

LAYOUT_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)  # raised for files of another layout


READ_MAT = "import sys; from scipy.io import loadmat; loadmat(sys.argv[1], squeeze_me=True)"
NO_CRASH = (0, 1)  # exit codes of Python: success, or an exception


def read_lines(path: Path) -> list[list[str]]:
    """Read the lines of an annotation file, split at blanks. Empty lines are left out.

    Raises:
        UserError: If the file cannot be read as text.
    """
    try:
        return [line.split() for line in read_text(path).split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from error


def read_mat(path: Path) -> dict[str, Any]:
    """Read the variables of a MATLAB file.

    Raises:
        UserError: If the file cannot be read as one.
    """
    from scipy.io import loadmat

    try:
        with open_file(path) as file:
            # Some damaged files crash SciPy's reader, so another process reads the file first.
            trial = subprocess.run([sys.executable, "-c", READ_MAT, path], capture_output=True, check=False)
            if trial.returncode not in NO_CRASH:
                raise ValueError("it is damaged")
            return loadmat(file, squeeze_me=True)
    except Exception as error:  # SciPy's reader raises many kinds of exceptions for damaged files
        raise UserError(f"{path} cannot be read as a MATLAB file ({error}); fetch it again") from error


def read_rows(path: Path, names: Sequence[str], entries: Callable[[], Iterable[tuple[Any, Any]]]) -> list[Row]:
    """Convert the entries of an annotation file to rows, and check paths and classes.

    Args:
        path: Path of the file, for the error message.
        names: Class names by label.
        entries: Function that yields pairs of an image path and its class: a name, or a number from 1.

    Raises:
        UserError: If the file has another layout, or lists no image.
    """
    number_of = {name: number for number, name in enumerate(names, start=1)}
    form = List(schemas.Row((PathText(), whole(1, len(names)))), least=1, most=MOST_ROWS)
    try:
        pairs = [(image, _number(of, number_of)) for image, of in entries()]
        form.check(pairs)
        return [within(image, number - 1, names[number - 1]) for image, number in pairs]
    except LAYOUT_ERRORS as error:
        what = f"no {error} in it" if isinstance(error, KeyError) else error
        raise UserError(
            f"{path}: expected images and their classes, of which there are {len(names)} ({what}); fetch it again"
        ) from error


def _number(of: Any, number_of: Mapping[str, int]) -> int:
    """Convert a class name, or a number of any type as found in MATLAB files, to the number of the class.

    Raises:
        ValueError: If there is no class of this name, or the number is not an integer.
    """
    if isinstance(of, str):
        if of not in number_of:
            raise ValueError(f"{of!r:.80} is no class")
        return number_of[of]
    if int(of) != of:
        raise ValueError(f"{of} is no whole number")
    return int(of)
