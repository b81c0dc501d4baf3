"""Reading of files from outside the program: only regular files are opened, and their size is limited."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

MISSING = (FileNotFoundError, NotADirectoryError)
MAX_JSON_BYTES = 1 << 30  # bytes
MAX_TEXT_BYTES = 1 << 28
MAX_TABLE_BYTES = 1 << 32
MAX_WEIGHTS_BYTES = 1 << 35  # the largest CLIPs have 20 GB


@contextmanager
def open_file(path: str | os.PathLike[str], most: int = MAX_WEIGHTS_BYTES) -> Iterator[BinaryIO]:
    """Open a file of any name and content for reading in binary mode.

    Args:
        path: The file.
        most: Maximum size in bytes.

    Raises:
        OSError: If it is missing, not a regular file (a pipe, a device, a socket, a folder), too large or unreadable.
    """
    try:
        # O_NONBLOCK: opening a pipe must not wait for a writer
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a null byte in the path
        raise OSError(errno.EINVAL, str(error), os.fspath(path)) from error
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "no plain file", os.fspath(path))
    with os.fdopen(number, "rb") as file:
        if status.st_size > most:
            what = f"{status.st_size >> 20} MiB: at most {most >> 20} are read"
            raise OSError(errno.EFBIG, what, os.fspath(path))
        yield file


def digest_of(path: str | os.PathLike[str], kind: str = "sha256") -> str:
    """Return the hash of a file in hexadecimal; `kind` is a name of hashlib's."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open_file(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a file; see `open_file`. At most `most` bytes are read, even if the file grows meanwhile."""
    try:
        with open_file(path, most) as file:
            return file.read(most)
    except OSError as error:
        error.filename = error.filename or os.fspath(path)  # a failed read does not name the file
        raise


def read_text(path: Path, most: int = MAX_TEXT_BYTES, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Read a text file, and convert all line endings to LF; see `open_file`.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it cannot be decoded.
    """
    return read_bytes(path, most).decode(encoding, errors).replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, most: int = MAX_JSON_BYTES) -> Any:
    """Read an untrusted JSON file; see `parse_json`.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If its content is not valid JSON.
    """
    return parse_json(read_bytes(path, most))


def read_table(path: Path, **options: Any) -> Any:
    """Read a CSV file as a table of strings; see `open_file`.

    Args:
        path: The file.
        **options: Arguments of pandas' `read_csv`.

    Returns:
        A DataFrame.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not a valid table.
    """
    import pandas as pd  # slow to import, and most commands read no table

    as_texts = {"dtype": str, "keep_default_na": False, "encoding_errors": "surrogateescape", "index_col": False}
    with open_file(path, MAX_TABLE_BYTES) as file, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(file, **as_texts | options)
        except pd.errors.ParserWarning as error:
            raise ValueError("a row has more cells than the first one") from error


def parse_json(text: str | bytes) -> Any:
    """Parse JSON, in UTF-8 if it is given as bytes.

    Raises:
        ValueError: If it is invalid or nested too deeply, or has NaN, infinity or a duplicate name.
    """
    content = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        return json.loads(content, parse_constant=_no_number, object_pairs_hook=_named_once)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _named_once(parts: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(parts)
    if len(record) < len(parts):
        names = Counter(name for name, _ in parts)
        raise ValueError(f"{names.most_common(1)[0][0][:80]!r} is listed twice")
    return record


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


@contextmanager
def plain_path(path: Path) -> Iterator[Path]:
    """Context with a path of a file for libraries that open it themselves and accept only UTF-8; see `open_file`."""
    with open_file(path) as file:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            yield Path(f"/dev/fd/{file.fileno()}")
        else:
            yield path


def is_archive(file: BinaryIO | Path) -> bool:
    """Return whether a file is a zip archive. The answer for a damaged archive may be False."""
    try:
        return zipfile.is_zipfile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # is_zipfile does not catch all of them
        return False


def broken_member(file: BinaryIO) -> str:
    """Return the name of the first member of a zip archive whose checksum is wrong; empty if all are right.

    `torch.save` writes such archives, and `torch.load` does not verify the checksums. The result is also empty for a
    file that is not an archive.
    """
    try:
        if not is_archive(file):
            return ""
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() or ""
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return f"the archive ({type(error).__name__})"
    finally:
        file.seek(0)
