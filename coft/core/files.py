"""Files that are written whole or not at all."""

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

from coft.core.errors import UserError
from coft.core.forms import PathText
from coft.core.paths import expanded
from coft.core.settings import shown

ABANDONED = 3600  # seconds after which a draft is nobody's
PATIENCE = 5.0  # seconds in which the reader of a pipe may come
LEAST_ROOM = 4 << 20  # bytes
CSV_END = "\r\n"
MOST_LINKS = 40  # that lead from one to another, as the system takes them
LONGEST_STEM = 64  # characters of a draft's name: a name may be as long as the system takes, its draft has more


def given_path(path: Any, name: str) -> Path:
    """A path that a program gives, with the user's home for a ~.

    Args:
        path: A text, or what stands for a path.
        name: What the program calls it, for the error.

    Raises:
        UserError: If it is none.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not PathText().takes(text):
        raise UserError(f"{name} is {shown(text)}; expected {PathText().expected}")
    return expanded(text)


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


def check_room(folder: Path) -> None:
    """Refuse an output folder on a disk that is full: no run leaves less than that.

    Raises:
        UserError: If hardly anything can be written there.
    """
    with suppress(OSError):  # not every file system tells
        disk = shutil.disk_usage(folder)
        if disk.total and disk.free < LEAST_ROOM:
            raise UserError(
                f"output folder {folder}: {disk.free >> 10} kB are free on its disk; make room, or choose another"
            )


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
        raise UserError(f"{folder}: is there already, and not empty; choose another folder")


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

    Links are followed to the file that they name. What is no plain file, such as a pipe, standard output or the null
    device, stays what it is, and gets all that was written.

    Yields:
        The temporary path, with the same suffix.

    Raises:
        OSError: If nothing can be written there: at a folder, a disk, or a circle of links.
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
            error.filename = str(path)  # what a user knows, not its draft
        raise
    finally:
        with suppress(OSError):  # if it cannot be there, either, that is said already
            draft.unlink(missing_ok=True)


def _open_special(path: Path) -> int:
    """Open a pipe or a device for writing. A pipe's reader is waited for, but not for ever.

    Returns:
        The number of the open file.

    Raises:
        OSError: If it cannot be opened, or nobody reads the pipe.
    """
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
    """Where the links of a path end. Those of the system, such as /dev/stdout, are an end."""
    for _ in range(MOST_LINKS):
        path = Path(os.path.realpath(path.parent), path.name)
        if not path.is_symlink() or _of_system(path):
            return path
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _of_system(path: Path) -> bool:
    return path.parent == Path("/dev") or path.is_relative_to("/proc")


def _is_special(path: Path) -> bool:
    """Whether a file is there that is not to be replaced by another one.

    Raises:
        OSError: If it is a folder or a disk.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
        raise OSError(errno.EISDIR, "is a folder" if stat.S_ISDIR(mode) else "is a disk", str(path))
    return not stat.S_ISREG(mode) or _of_system(path)


def _clear(folder: Path, drafts: re.Pattern[str]) -> None:
    """Remove drafts that processes left which were killed while they wrote."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if drafts.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED:
                os.unlink(entry.path)  # noqa: PTH108


def check_place(flag: str, path: Path | None) -> None:
    """Refuse a file that could not be written later, after a person's work.

    Args:
        flag: What names the file.
        path: The file that is to be written, if any.

    Raises:
        UserError: If there is no folder for it, or one that may not be written to.
    """
    folder = None if path is None else Path(os.path.realpath(path)).parent
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(f"{flag} {path}: there is no folder {folder} that can be written to; choose another place")


def check_replaced(flag: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """Refuse to replace a file of another kind, such as the image that a shell makes of a pattern.

    Args:
        flag: What names the file.
        path: The file that is to be written, if any.
        suffixes: Endings of files that may be replaced. Empty files, and those without an ending, may be, too.

    Raises:
        UserError: If there is a file with another ending.
    """
    if path is None or path.suffix.lower() in ("", *suffixes) or not path.is_file() or not path.stat().st_size:
        return
    raise UserError(
        f"{flag} {path}: a file is there that may be of another kind; give a new name, or one that ends in "
        f"{' or '.join(suffixes)}"
    )


def write_table(table: Any, path: Path, **options: Any) -> None:
    """Write a table of pandas as CSV, whole or not at all; names of files that are no text stay what they are.

    Args:
        table: A DataFrame.
        path: The file.
        **options: Of its `to_csv`.
    """
    unix = options.pop("lineterminator", "\n") == "\n"
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table.to_csv(UnixLines(file) if unix else file, index=False, lineterminator=CSV_END, **options)


class UnixLines:
    """A file for a writer of CSV, whose rows end as the standard says, so that it quotes a carriage return in a cell.

    Args:
        file: Gets the rows, with Unix's end of a line.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, row: str) -> int:
        """Write a row."""
        return self.file.write(row.removesuffix(CSV_END) + "\n")
