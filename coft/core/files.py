"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coft.core.errors import UserError

ABANDONED = 3600  # seconds after which a draft is nobody's
MOST_JSON = 1 << 30  # bytes
LONGEST_STEM = 64  # characters of a draft's name: a name may be as long as the system takes, its draft has more


def ensure_folder(path: Path, flag: str) -> None:
    """Make a folder with those above it.

    Args:
        path: The folder.
        flag: What named it, for the error message.

    Raises:
        UserError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {path}: no folder can be there ({error.strerror}); choose another") from error


def check_apart(images: Path, output: Path, flag: str) -> None:
    """Refuse an output folder among the images: what a run leaves there would be images of the next one.

    Args:
        images: Folder that is looked through for images.
        output: Output folder.
        flag: What named the latter, for the error.

    Raises:
        UserError: If it is within.
    """
    if output.resolve().is_relative_to(images.resolve()):
        raise UserError(
            f"{flag} {output}: is within the folder of images {images}, and pictures of the report would be taken for "
            f"images; choose a folder beside it"
        )


def check_free(folder: Path) -> None:
    """Refuse a folder that has something in it.

    Raises:
        UserError: If it does, or is a file, or is called what libraries that write models do not take.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UserError(f"{folder}: is no name in UTF-8; choose another folder") from None
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: is there already, and not an empty folder; choose another")


def check_there(images: Path) -> None:
    """Refuse a place of images where nothing is.

    Raises:
        UserError: If nothing is there.
    """
    if not images.exists():
        raise UserError(f"images {images}: no such folder; check the path")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Context in which results are written: what the disk refuses is one line for the user.

    Raises:
        UserError: If it refuses.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written to ({error.strerror or error}); {remedy(error)}, and do the same again"
        ) from error


def remedy(error: Exception) -> str:
    """What is to be done about something that could not be written."""
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return "choose a folder where you may write, or change its permissions"
    return "see to the disk"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name beside it, and rename it when all is written.

    Yields:
        The temporary path, with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{path.stem[:LONGEST_STEM]}"
    draft = path.with_name(f"{stem}.{os.getpid()}.tmp{path.suffix}")
    _clear(path.parent, re.compile(rf"{re.escape(stem)}\.\d+\.tmp{re.escape(path.suffix)}"))
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(draft), draft):
            error.filename = str(path)  # what a user knows, not its draft
        raise
    finally:
        with suppress(OSError):  # if it cannot be there, either, that is said already
            draft.unlink(missing_ok=True)


def _clear(folder: Path, drafts: re.Pattern[str]) -> None:
    """Remove drafts that processes left which were killed while they wrote."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if drafts.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED:
                os.unlink(entry.path)  # noqa: PTH108


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """Context with a path to an existing file that libraries take which know UTF-8 alone, as safetensors does."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield Path(f"/dev/fd/{file.fileno()}")
    else:
        yield path


def write_table(table: Any, path: Path, **options: Any) -> None:
    """Write a table of pandas as CSV, whole or not at all; names of files that are no text stay what they are.

    Args:
        table: A DataFrame.
        path: The file.
        **options: Of its `to_csv`.
    """
    with replacing(path) as draft:
        table.to_csv(draft, index=False, errors="surrogateescape", **options)


def read_json(path: Path) -> Any:
    """Read JSON that anybody may have written.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no JSON, or nested too deeply to be read.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise ValueError(f"{path.stat().st_size >> 20} MiB: at most {MOST_JSON >> 20} are read")
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def broken_member(path: Path) -> str:
    """Name of the first part of a zip archive, such as `torch.save` writes, whose checksum is wrong; empty if none is.

    PyTorch does not compare checksums. A file that is no archive has none.
    """
    if not zipfile.is_zipfile(path):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() or ""
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return f"the archive ({type(error).__name__})"
