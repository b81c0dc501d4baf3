"""Atomic writing of files, and checks of the paths to write to."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from coft.core.errors import UserError, remedy
from coft.core.paths import expanded
from coft.core.schemas import PathText
from coft.core.settings import shown

ABANDONED = 3600  # seconds after which a draft counts as left behind by a killed process
PATIENCE = 5.0  # seconds to wait for a reader of a pipe
LEAST_ROOM = 4 << 20  # bytes
CSV_END = "\r\n"
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif"}  # those that are read
MOST_LINKS = 40  # length of a chain of symbolic links, as in the system
LONGEST_STEM = 64  # characters of the target's stem in a draft's name, which must not exceed the system's limit


def given_path(path: Any, name: str) -> Path:
    """Validate a path passed by a program, and expand a leading ~.

    Args:
        path: A string or path-like object.
        name: Name of the argument, for error messages.

    Raises:
        UserError: If it is not a valid path.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not PathText().matches(text):
        raise UserError(f"{name} is {shown(text)}; expected {PathText()}")
    return expanded(text)


def ensure_folder(path: Path, flag: str) -> None:
    """Create a folder and its parents.

    Args:
        path: The folder.
        flag: Option that named the folder, for error messages.

    Raises:
        UserError: If it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {path}: the folder cannot be created ({error.strerror}); choose another") from error


def check_disk_space(folder: Path) -> None:
    """Check that the disk of an output folder has `LEAST_ROOM` free bytes; every run writes more than that.

    Raises:
        UserError: If it has less.
    """
    with suppress(OSError):  # not every file system reports it
        disk = shutil.disk_usage(folder)
        if disk.total and disk.free < LEAST_ROOM:
            raise UserError(
                f"output folder {folder}: {disk.free >> 10} kB are free on its disk; make room, or choose another"
            )


def check_not_inside(images: Path, output: Path, flag: str) -> None:
    """Check that the output folder is not inside the image folder, where the next run would take results for images.

    Args:
        images: Folder that is searched for images.
        output: Output folder.
        flag: Option that named the output folder, for error messages.

    Raises:
        UserError: If it is inside.
    """
    if output.resolve().is_relative_to(images.resolve()):
        raise UserError(
            f"{flag} {output}: is within the folder of images {images}, and pictures of the report would be taken for "
            f"images; choose a folder beside it"
        )


def check_free(folder: Path) -> None:
    """Check that a folder is empty or does not exist.

    Raises:
        UserError: If it is not empty, is a file, or has a name that is not UTF-8, which libraries for models refuse.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UserError(f"{folder}: is no name in UTF-8; choose another folder") from None
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: is there already, and not empty; choose another folder")


def check_exists(images: Path) -> None:
    """Check that the path of the images exists.

    Raises:
        UserError: If it does not.
    """
    if not images.exists():
        raise UserError(f"images {images}: no such folder; check the path")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Context in which results are written: an OSError becomes a UserError with a remedy.

    Raises:
        UserError: If something cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror or error}); {remedy(error)}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file atomically: under a temporary name beside it, which is renamed when the file is complete.

    Symbolic links are followed to their target. A special file, such as a pipe, standard output or the null device, is
    not replaced: the complete content is copied to it.

    Yields:
        The temporary path, with the same suffix.

    Raises:
        OSError: If the file cannot be written, or is a folder, a block device or a loop of links.
    """
    target = _followed(path)
    if _is_special(target):
        with tempfile.TemporaryDirectory(prefix="coft-") as place:
            draft = Path(place) / f"draft{path.suffix}"
            yield draft
            with draft.open("rb") as source, os.fdopen(_open_special(target), "wb") as sink:
                shutil.copyfileobj(source, sink)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{target.stem[:LONGEST_STEM]}"
    draft = target.with_name(f"{stem}.{os.getpid()}.tmp{target.suffix}")
    _clear(target.parent, re.compile(rf"{re.escape(stem)}\.\d+\.tmp{re.escape(target.suffix)}"))
    try:
        yield draft
        draft.replace(target)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(draft), draft):
            error.filename = str(path)  # the path that the user knows, not the draft
        raise
    finally:
        with suppress(OSError):  # if the draft's path is unusable, an error has been raised already
            draft.unlink(missing_ok=True)


def _open_special(path: Path) -> int:
    """Open a pipe or a device for writing. Wait up to `PATIENCE` seconds for a reader of a pipe."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            number = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
            continue
        os.set_blocking(number, True)
        return number


def _followed(path: Path) -> Path:
    """Resolve the symbolic links of a path, but not those of the system, such as /dev/stdout."""
    for _ in range(MOST_LINKS):
        path = Path(os.path.realpath(path.parent), path.name)
        if not path.is_symlink() or _of_system(path):
            return path
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _of_system(path: Path) -> bool:
    return path.parent == Path("/dev") or path.is_relative_to("/proc")


def _is_special(path: Path) -> bool:
    """Return whether a path is a special file, which must not be replaced. Refuse folders and block devices."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
        raise OSError(errno.EISDIR, "is a folder" if stat.S_ISDIR(mode) else "is a disk", str(path))
    return not stat.S_ISREG(mode) or _of_system(path)


def _clear(folder: Path, drafts: re.Pattern[str]) -> None:
    """Remove drafts left behind by processes that were killed while writing."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if drafts.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED:
                os.unlink(entry.path)  # noqa: PTH108


def check_suffix(flag: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """Check the suffix of a file to be written: a table is no `.xlsx`, and must not replace an image.

    Args:
        flag: Option that names the file.
        path: The file, if any.
        suffixes: Allowed suffixes. A name without a suffix is allowed, too.

    Raises:
        UserError: If the suffix is another one.
    """
    if path is not None and path.suffix.lower() not in ("", *suffixes):
        raise UserError(f"{flag} {path}: expected a name that ends in {' or '.join(suffixes)}; give another one")


def write_table(table: Any, path: Path, **options: Any) -> None:
    """Write a DataFrame as CSV, atomically. File names that are not valid UTF-8 keep their bytes.

    Args:
        table: A DataFrame.
        path: The file.
        **options: Arguments of `DataFrame.to_csv`.
    """
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table.to_csv(UnixLines(file), index=False, lineterminator=CSV_END, **options)


def write_or_remove(table: Any, path: Path, **options: Any) -> None:
    """Write a DataFrame as CSV, see `write_table`; without rows, remove the file instead."""
    if len(table):
        write_table(table, path, **options)
    else:
        path.unlink(missing_ok=True)


class UnixLines:
    """File wrapper that turns CRLF at the end of CSV rows into LF.

    The CSV writer itself must end rows with CRLF: only then does it quote a carriage return in a cell.

    Args:
        file: File that receives the rows.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, row: str) -> int:
        """Write a row."""
        return self.file.write(row.removesuffix(CSV_END) + "\n")
