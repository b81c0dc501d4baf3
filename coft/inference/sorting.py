"""Sort files into class folders. No file is ever overwritten, and a journal can undo everything."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.files import ensure_folder
from coft.core.forms import Flag, PathText, Record, Text, whole
from coft.core.outside import parse_json, read_bytes

log = logging.getLogger(__name__)
FORMAT = "coft-sorted/1"
LONGEST = 100  # most bytes of a folder's name; file systems take 255, so a number still fits
MOST_BYTES = 1 << 32  # of a journal: of ten million files
STAMP = 2_000_000_000  # nanoseconds: some file systems keep no time to less
NAME = PathText()
HEAD = Record({"format": Text(choices=(FORMAT,)), "link": Flag()})
MADE = Record({"made": NAME})
PUT = Record({"from": NAME, "to": NAME}, {"size": whole(0, 2**63), "time": whole(-(2**63), 2**63), "points": NAME})
RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{i}" for name in ("com", "lpt") for i in range(1, 10))}  # Windows's


def folder_names(classes: Sequence[str]) -> list[str]:
    """A folder name for each class: safe on all systems, and unique even where upper and lower case are the same."""
    names: list[str] = []
    used: set[str] = set()
    for name in map(safe_name, classes):
        unused = next(candidate for candidate in _numbered(name, "") if candidate.casefold() not in used)
        used.add(unused.casefold())
        names.append(unused)
    return names


def safe_name(name: str) -> str:
    """A class name as a safe folder name: no separator or forbidden character, no leading dot, not too long."""
    safe = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", name)
    safe = safe.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").strip(" .")
    return f"_{safe}" if not safe or safe.casefold() in RESERVED else safe


def _numbered(stem: str, suffix: str) -> Iterator[str]:
    """A name, then the same name with the numbers 2, 3, ..."""
    yield stem + suffix
    number = 2
    while True:
        yield f"{stem}-{number}{suffix}"
        number += 1


class Sorter:
    """Moves or links files into class folders.

    Args:
        folder: Parent of the class folders.
        classes: Class names.
        link: Whether to link files instead of moving them.

    Attributes:
        journal: File that records what was done.
        done: Name of the column with the new path of a file.

    Raises:
        UserError: If the folder cannot be written to.
    """

    def __init__(self, folder: Path, classes: Sequence[str], link: bool) -> None:
        ensure_folder(folder, "--link" if link else "--move")
        self.folder, self.link = folder.resolve(), link
        self.done = "linked_to" if link else "moved_to"
        self.names = dict(zip(classes, folder_names(classes), strict=True))
        stamp = time.strftime("%Y%m%d-%H%M%S")
        try:
            self.journal = next(
                path for path in (self.folder / f"{name}.jsonl" for name in _numbered(f"sorted-{stamp}", ""))
                if not path.exists()
            )  # fmt: skip
            self._file = self.journal.open("x", encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise UserError(f"{folder}: nothing can be written there ({error.strerror}); choose another") from error
        self._note({"format": FORMAT, "link": link})

    def close(self) -> None:
        """Close the journal."""
        self._file.close()

    def put(self, path: Path, name: str) -> Path:
        """Put a file into the folder of a class, under a numbered name if its name is taken.

        Args:
            path: The file.
            name: Name of the class.

        Returns:
            The new path.

        Raises:
            UserError: If the file cannot be put there. It then stays where it was.
        """
        start = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a link
        class_folder = self.folder / self.names[name]
        try:
            known = {} if self.link else _state(start)
            if not class_folder.is_dir():
                class_folder.mkdir()
                self._note({"made": class_folder.name})
            for name_in_folder in _numbered(start.stem, start.suffix):
                target = class_folder / name_in_folder
                if os.path.lexists(target):
                    continue
                entry = {"from": str(start), "to": f"{class_folder.name}/{name_in_folder}", **known}
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
        """Record in the journal what the context does. The entry is written first, and taken back after an error."""
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
            raise OSError  # a relative one would lead elsewhere from there
        os.link(start, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # the target is on another file system, or there are no hard links
        _copy(start, target)
    try:
        start.unlink(missing_ok=True)  # if it is gone meanwhile, the target is the only copy
    except OSError:
        target.unlink()
        raise


def _copy(start: Path, target: Path) -> None:
    if start.is_symlink():
        target.symlink_to(_rebased(str(start.readlink()), start.parent, target.parent))
        return
    with start.open("rb") as source, target.open("xb") as copy:
        try:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()  # a full disk may only be noticed here
            shutil.copystat(start, target)
        except OSError:
            target.unlink()
            raise


def _rebased(points: str, start: Path, target: Path) -> str:
    """What a link that says `points` in a folder has to say in another one, to lead to the same place."""
    if os.path.isabs(points):  # noqa: PTH117
        return points
    return os.path.join(os.path.relpath(start.resolve(), target.resolve()), points)  # noqa: PTH118


def _state(path: Path) -> dict[str, Any]:
    """What tells whether a file was changed: its size and time, or what a link says."""
    if path.is_symlink():
        return {"points": str(path.readlink())}
    status = path.stat()
    return {"size": status.st_size, "time": status.st_mtime_ns}


# -------------------------------------------------------------------- undoing


def find_journal(path: Path) -> Path:
    """Find the journal to undo.

    Args:
        path: A journal, or a folder that holds exactly one.

    Raises:
        UserError: If there is no journal, or more than one.
    """
    if not path.exists():
        raise UserError(f"--undo {path}: there is no such file; a journal is removed once all is undone")
    if not path.is_dir():
        return path
    journals = sorted(path.glob("sorted-*.jsonl"), key=lambda journal: journal.stat().st_mtime_ns, reverse=True)
    if not journals:
        raise UserError(f"--undo {path}: no journal is in this folder; a journal is removed once all is undone")
    if len(journals) > 1:
        names = ", ".join(journal.name for journal in journals)
        raise UserError(
            f"--undo {path}: {len(journals)} journals are in this folder; give one, the newest first: {names}"
        )
    return journals[0]


def undo(journal: Path) -> tuple[int, int]:
    """Undo the entries of a journal in reverse order. A file that was changed or moved since stays where it is.

    Args:
        journal: The journal. It is removed once everything is undone.

    Returns:
        The number of files put back or links removed, and the number that could not be.

    Raises:
        UserError: If the file is no journal.
    """
    link, entries = _read(journal)
    done = failed = 0
    for entry in reversed(entries):
        if "made" in entry:
            with suppress(OSError):  # the folder may hold other files
                (journal.parent / entry["made"]).rmdir()
            continue
        try:
            start, target = Path(entry["from"]), journal.parent / entry["to"]
            done += _unlink(start, target) if link else _move_back(start, target, entry)
        except OSError as error:
            failed += 1
            log.warning("not undone %s: %s", entry["to"], error.strerror or error)
    if not failed:
        journal.unlink()
    return done, failed


def _move_back(start: Path, target: Path, known: Mapping[str, Any]) -> bool:
    """Move a file back; False if it was never moved.

    Raises:
        OSError: If it is gone, or was changed since: it is the only copy of what somebody did to it.
    """
    is_at_start = os.path.lexists(start)
    if is_at_start and os.path.lexists(target) and os.path.samestat(start.lstat(), target.lstat()):
        target.unlink()  # the move was stopped after the link and before the removal
        return True
    if not os.path.lexists(target):
        if is_at_start:
            return False
        raise FileNotFoundError(2, "it is no longer there")
    if not _is_unchanged(target, start, known):
        raise OSError(errno.EEXIST, "it was changed since, and stays where it is")
    start.parent.mkdir(parents=True, exist_ok=True)
    if "points" in known:
        if not (
            start.is_symlink() and str(start.readlink()) == known["points"]
        ):  # else the move was stopped before the removal
            start.symlink_to(known["points"])
        target.unlink()
    else:
        move(target, start)
    return True


def _is_unchanged(path: Path, start: Path, known: Mapping[str, Any]) -> bool:
    """Whether a file is the one that was moved, by what the journal knows of it; see `_state`."""
    if "points" in known:
        return path.is_symlink() and str(path.readlink()) == _rebased(known["points"], start.parent, path.parent)
    if "size" not in known:  # an earlier version's journal
        return path.is_symlink() or path.is_file()
    now = _state(path) if path.is_file() and not path.is_symlink() else {}
    return now.get("size") == known["size"] and abs(now["time"] - known["time"]) < STAMP


def _unlink(start: Path, target: Path) -> bool:
    """Remove a link; False if there is none."""
    if not os.path.lexists(target):
        return False
    if not target.is_symlink() or target.readlink() != start:
        raise FileExistsError(17, "it is no longer the link that was made")
    target.unlink()
    return True


def _read(journal: Path) -> tuple[bool, list[dict[str, Any]]]:
    """Whether a journal is of links, and its entries. A last line that is cut off is left out: it was not done."""
    try:
        text = read_bytes(journal, MOST_BYTES)
        head, *entries = [parse_json(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")] or [{}]
        HEAD.check(head, "its first line")
        for number, entry in enumerate(entries, start=2):
            (MADE if isinstance(entry, dict) and "made" in entry else PUT).check(entry, f"line {number}")
            if not _is_below(entry):
                raise ValueError(f"line {number} leads out of the folder")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--undo {journal}: is no journal ({reason}); give the file that --move or --link named"
        ) from error
    return head["link"], entries


def _is_below(entry: Mapping[str, Any]) -> bool:
    """Whether an entry names only a folder or a file within a folder of the journal's, and a full path before."""
    names = [entry["made"]] if "made" in entry else entry["to"].split("/")
    plain = all(name not in ("", ".", "..") and "/" not in name for name in names)
    return plain and ("made" in entry or (len(names) == 2 and Path(entry["from"]).is_absolute()))
