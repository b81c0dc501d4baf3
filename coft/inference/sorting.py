"""Sorting of files into class folders. No file is ever overwritten, and `undo_journal` can revert it by its journal."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.files import ensure_folder
from coft.core.untrusted import open_file

log = logging.getLogger(__name__)
FORMAT = "coft-sorted/1"
LONGEST = 100  # most bytes of a folder's name; file systems allow 255, so a number can still be appended
LONGEST_NAME = 245  # most bytes of a file's name before its number
RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{i}" for name in ("com", "lpt") for i in range(1, 10))}  # on Windows


def folder_names(classes: Sequence[str]) -> list[str]:
    """Return a folder name for each class: safe on all systems, and unique on case-insensitive file systems too."""
    names: list[str] = []
    used: set[str] = set()
    for name in map(safe_name, classes):
        unused = next(candidate for candidate in _numbered(name, "") if candidate.casefold() not in used)
        used.add(unused.casefold())
        names.append(unused)
    return names


def safe_name(name: str) -> str:
    """Turn a class name into a safe folder name: no separator or forbidden character, no leading dot, not too long."""
    safe = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", name)
    safe = safe.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").strip(" .")
    return f"_{safe}" if not safe or safe.casefold() in RESERVED else safe


def _numbered(stem: str, suffix: str) -> Iterator[str]:
    """Yield a name, then the same name with the numbers 2, 3, ...; a long stem is cut to make room for them."""
    yield stem + suffix
    room = LONGEST_NAME - len(os.fsencode(suffix))
    if len(os.fsencode(stem)) > room:
        stem = os.fsencode(stem)[:room].decode("utf-8", "ignore")
    yield from (f"{stem}-{number}{suffix}" for number in count(2))


class Sorter:
    """Sorter that moves or links files into class folders.

    Args:
        folder: Parent of the class folders.
        classes: Class names.
        link: Whether to link files instead of moving them.

    Attributes:
        journal: File that records every change.
        done: Name of the row's column with the new path of a file.
        names: Folder names by class.
        is_new: Whether the parent folder was made.

    Raises:
        UserError: If the folder cannot be written to, or a class folder in it is a link.
    """

    def __init__(self, folder: Path, classes: Sequence[str], link: bool) -> None:
        self.is_new = not os.path.lexists(folder)
        ensure_folder(folder, "--link" if link else "--move")
        self.folder, self.link = folder.resolve(), link
        self.done = "linked_to" if link else "moved_to"
        self.names = dict(zip(classes, folder_names(classes), strict=True))
        if links := [name for name in self.names.values() if (self.folder / name).is_symlink()]:
            raise UserError(f"{folder / links[0]} is a symbolic link; remove it or choose another folder")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        try:
            for name in _numbered(f"sorted-{stamp}", ""):
                self.journal = self.folder / f"{name}.jsonl"
                with suppress(FileExistsError):
                    self._file = self.journal.open("x", encoding="utf-8", errors="surrogateescape")
                    break
            try:
                self._note({"format": FORMAT, "link": link, "made": self.is_new})
            except OSError:  # such as a full disk
                with suppress(OSError):  # closing flushes the buffer, which may fail again
                    self._file.close()
                self.journal.unlink()
                raise
        except OSError as error:
            raise UserError(f"{folder}: nothing can be written there ({error.strerror}); choose another") from error
        self._begun = self._file.tell()
        self._made: list[Path] = []

    def close(self) -> bool:
        """Close the journal. Without entries of files, it is removed, with new folders. Returns whether it was kept."""
        is_kept = self._file.tell() > self._begun
        self._file.close()
        if not is_kept:
            for path in self._made:
                with suppress(OSError):  # the folder is not empty
                    path.rmdir()
            self.journal.unlink()
            if self.is_new:
                with suppress(OSError):  # the folder is not empty
                    self.folder.rmdir()
        return is_kept

    def put(self, path: Path, name: str) -> Path:
        """Move or link a file into the folder of a class, under a numbered name if its name is taken.

        Args:
            path: The file.
            name: Name of the class.

        Returns:
            The new path.

        Raises:
            UserError: If that fails. The file then stays where it was.
        """
        start = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a link
        class_folder = self.folder / self.names[name]
        try:
            state = {} if self.link else state_of(start)
            with suppress(FileExistsError):
                class_folder.mkdir()
                before = self._file.tell()
                self._note({"made": class_folder.name})
                self._made.append(class_folder)
                self._begun += self._file.tell() - before
            for name_in_folder in _numbered(start.stem, start.suffix):
                target = class_folder / name_in_folder
                if os.path.lexists(target):
                    if self.link and target.is_symlink() and target.readlink() == start:
                        return target  # of an earlier command
                    continue
                entry = {"from": str(start), "to": f"{class_folder.name}/{name_in_folder}", **state}
                with suppress(FileExistsError), self._noting(entry):
                    (os.symlink if self.link else move)(start, target)
                    return target
        except OSError as error:
            raise UserError(
                f"{path} cannot be put into {class_folder} ({error.strerror}); it stays where it is"
            ) from error
        raise AssertionError("numbers do not end")

    @contextmanager
    def _noting(self, entry: dict[str, Any]) -> Iterator[None]:
        """Record in the journal what the context does. The entry is written first, and removed after an error."""
        before = self._file.tell()
        try:
            self._note(entry)
            yield
        except OSError:
            with suppress(OSError):  # the disk may be full
                self._file.seek(before)
                self._file.truncate()
            raise

    def _note(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


def move(start: Path, target: Path) -> None:
    """Move a file. Unlike a rename, it never replaces another file.

    Args:
        start: The file.
        target: Its new path.

    Raises:
        FileExistsError: If the target exists.
        OSError: If the file cannot be moved. It then stays where it was, and no copy is left at the target.
    """
    try:
        if start.is_symlink():
            raise OSError  # a relative symlink would point elsewhere from its new folder: `_copy` rewrites it
        os.link(start, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # a symlink, a target on another file system, or a file system without hard links
        _copy(start, target)
    try:
        start.unlink(missing_ok=True)  # if it has disappeared meanwhile, the target is the only copy
    except OSError:
        target.unlink()
        raise


def _copy(start: Path, target: Path) -> None:
    if start.is_symlink():
        target.symlink_to(rebased(str(start.readlink()), start.parent, target.parent))
        return
    with open_file(start) as source, target.open("xb") as copy:
        try:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()  # a full disk may only be noticed here
            shutil.copystat(start, target)
        except BaseException:  # including Ctrl-C: leave no partial copy
            target.unlink()
            raise


def rebased(points: str, start: Path, target: Path) -> str:
    """Return the target of a symlink after a move of the link from `start` to `target`, so that it still resolves.

    Args:
        points: Target of the link, as stored in it. An absolute one is returned unchanged.
        start: Folder of the link.
        target: New folder of the link.
    """
    if os.path.isabs(points):  # noqa: PTH117
        return points
    return os.path.join(os.path.relpath(start.resolve(), target.resolve()), points)  # noqa: PTH118


def state_of(path: Path) -> dict[str, Any]:
    """Return the state by which a change of a file is detected: size and modification time, or the target of a link."""
    if path.is_symlink():
        return {"points": str(path.readlink())}
    status = path.stat()
    return {"size": status.st_size, "time": status.st_mtime_ns}
