"""Sort files into class folders. No file is ever overwritten, and a journal can undo everything."""

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
LONGEST = 100  # most bytes of a folder's name; file systems take 255, so a number still fits
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
            if not class_folder.is_dir():
                class_folder.mkdir()
                self._note({"made": class_folder.name})
            for name_in_folder in _numbered(start.stem, start.suffix):
                target = class_folder / name_in_folder
                if os.path.lexists(target):
                    continue
                entry = {"from": str(start), "to": f"{class_folder.name}/{name_in_folder}"}
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
        target.symlink_to(start.readlink())
        return
    with start.open("rb") as source, target.open("xb") as copy:
        try:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()  # a full disk may only be noticed here
            shutil.copystat(start, target)
        except OSError:
            target.unlink()
            raise


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
            done += (_unlink if link else _move_back)(Path(entry["from"]), journal.parent / entry["to"])
        except OSError as error:
            failed += 1
            log.warning("not undone %s: %s", entry["to"], error.strerror or error)
    if not failed:
        journal.unlink()
    return done, failed


def _move_back(start: Path, target: Path) -> bool:
    """Move a file back; False if it was never moved."""
    is_at_start = os.path.lexists(start)
    if is_at_start and os.path.lexists(target) and os.path.samestat(start.lstat(), target.lstat()):
        target.unlink()  # the move was stopped after the link and before the removal
        return True
    if not os.path.lexists(target):
        if is_at_start:
            return False
        raise FileNotFoundError(2, "it is no longer there")
    start.parent.mkdir(parents=True, exist_ok=True)
    move(target, start)
    return True


def _unlink(start: Path, target: Path) -> bool:
    """Remove a link; False if there is none."""
    if not os.path.lexists(target):
        return False
    if not target.is_symlink() or target.readlink() != start:
        raise FileExistsError(17, "it is no longer the link that was made")
    target.unlink()
    return True


def _read(journal: Path) -> tuple[bool, list[dict[str, str]]]:
    """Whether a journal is of links, and its entries. A last line that is cut off is left out: it was not done."""
    try:
        lines = journal.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
        head, *entries = [json.loads(line) for line in lines if line.endswith("\n")] or [{}]
        is_journal = isinstance(head, dict) and head.get("format") == FORMAT
        if not is_journal or not all(map(_is_entry, entries)):
            raise ValueError("not what predict.sh writes")
    except (OSError, ValueError) as error:
        raise UserError(
            f"--undo {journal}: is no journal ({error}); give the file that --move or --link named"
        ) from error
    return bool(head["link"]), entries


def _is_entry(entry: Any) -> bool:
    """Whether an entry is well formed and names only targets inside the journal's folder."""
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        return False
    if entry.keys() == {"made"}:
        return _is_plain(entry["made"])
    parts = entry.get("to", "").split("/")
    return entry.keys() == {"from", "to"} and len(parts) == 2 and all(map(_is_plain, parts))


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name
