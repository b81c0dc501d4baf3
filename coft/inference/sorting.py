"""Sorting files into folders of classes. Nothing is ever overwritten, and a journal undoes it."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.files import ensure_folder

log = logging.getLogger(__name__)
FORMAT = "coft-sorted/1"
LONGEST = 100  # bytes of a folder's name, which leaves room for a number
RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{i}" for name in ("com", "lpt") for i in range(1, 10))}  # Windows's


def folder_names(classes: Sequence[str]) -> list[str]:
    """A folder name for each class: safe on all systems, no two the same, upper and lower case apart or not."""
    names: list[str] = []
    taken: set[str] = set()
    for name in map(safe_name, classes):
        free = next(tried for tried in _numbered(name, "") if tried.casefold() not in taken)
        taken.add(free.casefold())
        names.append(free)
    return names


def safe_name(name: str) -> str:
    """A name as a folder's: no separator, no sign that a system forbids, no dot in front, not too long."""
    safe = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", name)
    safe = safe.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").strip(" .")
    return f"_{safe}" if not safe or safe.casefold() in RESERVED else safe


def _numbered(stem: str, suffix: str) -> Iterator[str]:
    """A name, then the same with numbers from 2 on."""
    yield stem + suffix
    number = 2
    while True:
        yield f"{stem}-{number}{suffix}"
        number += 1


class Sorter:
    """Moves or links files into folders of classes.

    Args:
        folder: Where the folders of classes are, or are made.
        classes: Names that files can be given.
        link: Whether files are linked to instead of moved.

    Attributes:
        journal: The file that says what was done.
        done: Name of the column that says where a file is now.

    Raises:
        UserError: If nothing can be written there.
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
        """Put a file into the folder of a class, under another name where its own is taken.

        Args:
            path: The file.
            name: Of the class.

        Returns:
            Where it is now.

        Raises:
            UserError: If it cannot be put there. It is then where it was.
        """
        start = Path(os.path.abspath(path))  # noqa: PTH100 - a link stays the link that it is
        place = self.folder / self.names[name]
        try:
            if not place.is_dir():
                place.mkdir()
                self._note({"made": place.name})
            for free in _numbered(start.stem, start.suffix):
                target = place / free
                if os.path.lexists(target):
                    continue
                with suppress(FileExistsError), self._noted({"from": str(start), "to": f"{place.name}/{free}"}):
                    (os.symlink if self.link else move)(start, target)
                    return target
        except OSError as error:
            raise UserError(f"{path} cannot be put into {place} ({error.strerror}); it stays where it is") from error
        raise AssertionError("numbers do not end")

    @contextmanager
    def _noted(self, entry: dict[str, Any]) -> Iterator[None]:
        """Note what is done in this context, ahead of it, since undo looks what was. An error takes the line back."""
        before = self._file.tell()
        try:
            self._note(entry)
            yield
        except OSError:
            with suppress(OSError):  # a full disk
                self._file.seek(before)
                self._file.truncate()
            raise

    def _note(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


def move(start: Path, target: Path) -> None:
    """Move a file. Unlike a rename, it does not take the place of a file that is there.

    Raises:
        FileExistsError: If something is there.
        OSError: If it cannot be moved. It is then where it was, and there alone.
    """
    try:
        os.link(start, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # another file system, or one without hard links
        _copy(start, target)
    try:
        start.unlink(missing_ok=True)  # gone in between: what is at the target is then the only one
    except OSError:
        target.unlink()
        raise


def _copy(start: Path, target: Path) -> None:
    if start.is_symlink():
        target.symlink_to(start.readlink())
        return
    with start.open("rb") as source, target.open("xb") as copy:
        try:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()  # here, since a full disk may say so only now
            shutil.copystat(start, target)
        except OSError:
            target.unlink()
            raise


# -------------------------------------------------------------------- undoing


def find_journal(path: Path) -> Path:
    """The journal that a user means by a file, or by a folder that has only one.

    Raises:
        UserError: If there is none, or more than one.
    """
    if not path.exists():
        raise UserError(f"--undo {path}: there is no such file; a journal is removed once all is undone")
    if not path.is_dir():
        return path
    found = sorted(path.glob("sorted-*.jsonl"), key=lambda journal: journal.stat().st_mtime_ns, reverse=True)
    if not found:
        raise UserError(f"--undo {path}: no journal is in this folder; a journal is removed once all is undone")
    if len(found) > 1:
        names = ", ".join(journal.name for journal in found)
        raise UserError(f"--undo {path}: {len(found)} journals are in this folder; give one, the newest first: {names}")
    return found[0]


def undo(journal: Path) -> tuple[int, int]:
    """Undo what a journal says, the last first. Files that were changed or moved since stay where they are.

    Args:
        journal: The file. It is removed once all is undone.

    Returns:
        How many files were put back, or links removed, and how many could not be.

    Raises:
        UserError: If it is no journal.
    """
    link, entries = _read(journal)
    done = failed = 0
    for entry in reversed(entries):
        if "made" in entry:
            with suppress(OSError):  # it has other files, too
                (journal.parent / entry["made"]).rmdir()
            continue
        try:
            done += (_unlink if link else _back)(Path(entry["from"]), journal.parent / entry["to"])
        except OSError as error:
            failed += 1
            log.warning("not undone %s: %s", entry["to"], error.strerror or error)
    if not failed:
        journal.unlink()
    return done, failed


def _back(start: Path, target: Path) -> bool:
    """Move a file back; False where it was never moved."""
    there = os.path.lexists(start)
    if there and os.path.lexists(target) and os.path.samestat(start.lstat(), target.lstat()):
        target.unlink()  # stopped between the two halves of a move
        return True
    if not os.path.lexists(target):
        if there:
            return False
        raise FileNotFoundError(2, "it is no longer there")
    start.parent.mkdir(parents=True, exist_ok=True)
    move(target, start)
    return True


def _unlink(start: Path, target: Path) -> bool:
    """Remove a link; False where there is none."""
    if not os.path.lexists(target):
        return False
    if not target.is_symlink() or target.readlink() != start:
        raise FileExistsError(17, "it is no longer the link that was made")
    target.unlink()
    return True


def _read(journal: Path) -> tuple[bool, list[dict[str, str]]]:
    """Whether a journal is of links, and its entries. What is cut off at the end was not done."""
    try:
        lines = journal.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
        head, *entries = [json.loads(line) for line in lines if line.endswith("\n")] or [{}]
        known = isinstance(head, dict) and head.get("format") == FORMAT
        if not known or not all(map(_is_entry, entries)):
            raise ValueError("not what predict.sh writes")
    except (OSError, ValueError) as error:
        raise UserError(
            f"--undo {journal}: is no journal ({error}); give the file that --move or --link named"
        ) from error
    return bool(head["link"]), entries


def _is_entry(entry: Any) -> bool:
    """Whether an entry names nothing outside of the journal's folder as what was made there."""
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        return False
    if entry.keys() == {"made"}:
        return _is_plain(entry["made"])
    parts = entry.get("to", "").split("/")
    return entry.keys() == {"from", "to"} and len(parts) == 2 and all(map(_is_plain, parts))


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name
