"""Reversal of a sorting by its journal; see `sorting`. Nothing is overwritten, and changed files stay in place."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.sanitize import one_line
from coft.core.schemas import Flag, PathText, Record, Text, whole
from coft.core.untrusted import open_file, parse_json, read_bytes

from .sorting import FORMAT, move, rebased, state_of

log = logging.getLogger(__name__)
MAX_BYTES = 1 << 32  # upper bound of the size of a journal: ten million files
TIME_TOLERANCE_NS = 2_000_000_000  # for a modification time: some file systems store it in steps of two seconds
NAME = PathText()
HEAD = Record({"format": Text(choices=(FORMAT,)), "link": Flag()}, {"made": Flag()})  # made: the folder itself
FOLDER_ENTRY = Record({"made": NAME})
FILE_ENTRY = Record(
    {"from": NAME, "to": NAME}, {"size": whole(0, 2**63), "time": whole(-(2**63), 2**63), "points": NAME}
)


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
        names = ", ".join(map(str, journals))
        raise UserError(f"--undo {path}: {len(journals)} journals are in this folder; begin with the newest: {names}")
    return journals[0]


def undo(journal: Path) -> tuple[int, int]:
    """Undo the entries of a journal in reverse order. A file that was changed or moved since then stays where it is.

    Args:
        journal: The journal. It is removed once everything is undone.

    Returns:
        Number of files moved back or links removed, and number of those that could not be.

    Raises:
        UserError: If the file is not a journal.
    """
    head, entries = _read(journal)
    done = failed = 0
    for entry in reversed(entries):
        if "made" in entry:
            with suppress(OSError):  # the folder may hold other files
                (journal.parent / entry["made"]).rmdir()
            continue
        try:
            start, target = Path(entry["from"]), journal.parent / entry["to"]
            if target.parent.is_symlink():
                raise OSError(errno.EEXIST, "its folder is a symbolic link to another place")
            done += _unlink(start, target) if head["link"] else _move_back(start, target, entry)
        except (OSError, RuntimeError) as error:  # RuntimeError: a symlink loop, before Python 3.13
            failed += 1
            log.warning("not undone %s: %s", one_line(entry["to"]), getattr(error, "strerror", None) or error)
    if not failed:
        journal.unlink()
        if head.get("made"):
            with suppress(OSError):  # the folder may hold other files
                journal.parent.rmdir()
    return done, failed


def _move_back(start: Path, target: Path, entry: Mapping[str, Any]) -> bool:
    """Move a file back; False if it was never moved.

    Raises:
        OSError: If it is gone, or was changed since: then it is the only copy of the user's changes.
    """
    is_at_start = os.path.lexists(start)
    if is_at_start and os.path.lexists(target) and os.path.samestat(start.lstat(), target.lstat()):
        target.unlink()  # the move was interrupted between the hard link and the removal of the original
        return True
    if is_at_start and "points" not in entry and _begins_with(start, target):
        target.unlink()  # the move was interrupted during or after the copy
        return True
    if not os.path.lexists(target):
        if is_at_start:
            return False
        raise FileNotFoundError(2, "it is no longer there")
    if not _is_unchanged(target, start, entry):
        raise OSError(errno.EEXIST, "it was changed since, and stays where it is")
    start.parent.mkdir(parents=True, exist_ok=True)
    if "points" in entry:
        if not (start.is_symlink() and str(start.readlink()) == entry["points"]):
            start.symlink_to(entry["points"])  # else the move was interrupted before the removal of the original
        target.unlink()
    else:
        move(target, start)
    return True


def _begins_with(path: Path, part: Path) -> bool:
    """Return whether both paths are plain files and the first one begins with all bytes of the second one."""
    if not all(file.is_file() and not file.is_symlink() for file in (path, part)):
        return False
    with open_file(path) as whole_file, open_file(part) as copy:
        while block := copy.read(1 << 20):
            if whole_file.read(len(block)) != block:
                return False
    return True


def _is_unchanged(path: Path, start: Path, entry: Mapping[str, Any]) -> bool:
    """Return whether a file is still in the state that its journal entry records; see `state_of`."""
    if "points" in entry:
        return path.is_symlink() and str(path.readlink()) == rebased(entry["points"], start.parent, path.parent)
    if not path.is_file() or path.is_symlink():
        return False
    now = state_of(path)
    return now["size"] == entry.get("size") and abs(now["time"] - entry.get("time", 0)) < TIME_TOLERANCE_NS


def _unlink(start: Path, target: Path) -> bool:
    """Remove a link that was made to `start`; False if there is nothing at `target`."""
    if not os.path.lexists(target):
        return False
    if not target.is_symlink() or target.readlink() != start:
        raise FileExistsError(17, "it is no longer the link that was made")
    target.unlink()
    return True


def _read(journal: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the first line of a journal, and its entries. A truncated last line is ignored: it was not executed."""
    try:
        text = read_bytes(journal, MAX_BYTES)
        head, *entries = [parse_json(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")] or [{}]
        HEAD.check(head, "its first line")
        for number, entry in enumerate(entries, start=2):
            (FOLDER_ENTRY if isinstance(entry, dict) and "made" in entry else FILE_ENTRY).check(entry, f"line {number}")
            if not _is_below(entry):
                raise ValueError(f"line {number} leads out of the folder")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--undo {journal}: is no journal ({reason}); give the file that --move or --link named"
        ) from error
    return head, entries


def _is_below(entry: Mapping[str, Any]) -> bool:
    """Check that an entry names a class folder of the journal's folder, or a file in one with an absolute origin."""
    names = [entry["made"]] if "made" in entry else entry["to"].split("/")
    plain = all(name not in ("", ".", "..") and "/" not in name for name in names)
    return plain and ("made" in entry or (len(names) == 2 and Path(entry["from"]).is_absolute()))
