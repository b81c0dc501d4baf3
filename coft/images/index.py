"""Index of the images in a user's folder: hash and problem of each file, cached between runs."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image

from coft.core.errors import UserError
from coft.core.files import replacing
from coft.core.paths import cache_folder
from coft.core.schemas import List, PathText, Record, Row, Text, whole
from coft.core.threads import map_threaded
from coft.core.untrusted import read_json
from coft.images.reading import FORMATS, SUFFIXES, UnreadableImage, check_sides, check_size, decode_image, read_bytes

log = logging.getLogger(__name__)
CACHE = cache_folder() / "folders"
VERSION = 2
UNREAD_SUFFIXES = {".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw"}
SMALL = 4096  # files up to this many bytes are decoded to check them; larger files are checked faster
NO_MEMORY = "not enough memory to decode it"
JPEG_TAIL = 4096  # a JPEG must have its end marker in its last bytes, not at the very end: some writers append data


@dataclass(frozen=True, slots=True)
class Entry:
    """Entry of the index, for one file.

    Attributes:
        path: Path relative to the folder, with slashes.
        size: Size in bytes; -1 if it is unknown.
        modified: Time of the last change in nanoseconds since the epoch: the later of mtime and ctime, since a change
            can keep mtime.
        digest: SHA-256 of the content, in hexadecimal; empty if the file has not been read.
        problem: Reason why the file cannot be read as an image; empty if it can.
    """

    path: str
    size: int
    modified: int
    digest: str = ""
    problem: str = ""


ROW = Row((PathText(), whole(-1, 2**63), whole(-(2**63), 2**63), Text(64), Text(1000)))  # a cached entry
SCHEMA = Record({"version": whole(VERSION, VERSION), "checksum": Text(16), "files": List(ROW, most=100_000_000)})


def index_folder(folder: Path) -> list[Entry]:
    """Index the images below a folder. Files that have not changed since the last run are not read again.

    Args:
        folder: Folder to search recursively, following links. Hidden files and folders are skipped.

    Returns:
        Entries of files with an image suffix, sorted by path.

    Raises:
        UserError: If the folder cannot be listed.
    """
    cache = CACHE / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"
    # Files that could not be read are read again: a change of permissions, drives or memory does not modify the file.
    cached = [entry for entry in _load(cache) if entry.digest and entry.problem != NO_MEMORY]
    indexed = {(entry.path, entry.size, entry.modified): entry for entry in cached}
    other_kinds: Counter[str] = Counter()
    files = sorted(list_images(folder, other_kinds), key=lambda entry: entry.path)
    unindexed = [entry for entry in files if (entry.path, entry.size, entry.modified) not in indexed]
    read_now = map_threaded(partial(read_entry, folder), unindexed, "index images")
    indexed |= {(entry.path, entry.size, entry.modified): entry for entry in read_now}
    entries = [indexed[entry.path, entry.size, entry.modified] for entry in files]
    log.info("Images in %s: %d, of which %d were new or changed", folder, len(files), len(unindexed))
    if other_kinds:
        counts = ", ".join(f"{suffix} {count}" for suffix, count in other_kinds.most_common())
        log.warning("Images of unsupported formats in %s are skipped: %s; convert them to JPEG or PNG", folder, counts)
    if unindexed:
        _save(cache, entries)
    return entries


def list_images(folder: Path, other_kinds: Counter[str] | None = None) -> Iterator[Entry]:
    """Yield files with an image suffix below a folder. Each folder is listed once, even if links are circular.

    A subfolder that cannot be listed is yielded as an entry with a problem.

    Args:
        folder: Folder to search recursively.
        other_kinds: Counter to which image files of unsupported formats are added, by suffix.

    Raises:
        UserError: If `folder` itself cannot be listed.
    """
    stack, seen = [(str(folder), "")], set()
    while stack:
        path, prefix = stack.pop()
        try:
            status = os.stat(path)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if is_folder(entry):
                        stack.append((entry.path, f"{prefix}{entry.name}/"))
                        continue
                    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
                    if suffix in SUFFIXES:
                        yield _entry_of(entry, prefix)
                    elif suffix in UNREAD_SUFFIXES and other_kinds is not None:
                        other_kinds[suffix] += 1
        except OSError as error:
            if not prefix:
                raise UserError(f"folder {path} cannot be listed ({error.strerror}); check its permissions") from error
            yield Entry(prefix.rstrip("/"), -1, 0, problem=f"the folder cannot be listed: {error.strerror}")


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether a directory entry is a folder. Circular links are not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _entry_of(entry: os.DirEntry[str], prefix: str) -> Entry:
    try:
        status = entry.stat()
    except OSError as error:  # a broken or circular link
        return Entry(prefix + entry.name, -1, 0, problem=str(error.strerror))
    modified = max(status.st_mtime_ns, status.st_ctime_ns)
    problem = "" if stat.S_ISREG(status.st_mode) else "no plain file"  # reading a pipe might never end
    return Entry(prefix + entry.name, status.st_size, modified, problem=problem)


def read_entry(folder: Path, entry: Entry) -> Entry:
    """Complete an entry: read and hash its file, and check that it is an image."""
    path = folder / entry.path
    if entry.problem:
        return entry
    try:
        data = read_bytes(path)
    except UnreadableImage as error:
        return replace(entry, problem=error.problem)
    return replace(entry, digest=hashlib.sha256(data).hexdigest(), problem=find_problem(data, path))


def find_problem(data: bytes, path: str | Path) -> str:
    """Return the problem of an image file; "" if there is none.

    Small files are decoded. Large JPEG and PNG files get a check at a fraction of the cost: they must open and have an
    end marker, and a PNG correct checksums. A file that passes but cannot be decoded raises an error when it is read.

    Args:
        data: Content of the file.
        path: Path of the file, for error messages.
    """
    try:
        if len(data) > SMALL and _looks_complete(data):
            return ""
        decode_image(data, path)
    except UnreadableImage as error:
        return error.problem
    except MemoryError:
        return NO_MEMORY
    return ""


def _looks_complete(data: bytes) -> bool:
    """Return whether a JPEG or PNG passes a check without decoding; False if only decoding can tell."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_sides(*image.size)
            if image.format == "JPEG":
                return b"\xff\xd9" in data[-JPEG_TAIL:]
            check_size(*image.size)  # not for a JPEG, which may be decoded at a reduced size
            if image.format == "PNG":
                image.verify()  # reads all chunks and compares their checksums
                return b"IEND" in data[-64:]
    except Exception:  # decoders raise exceptions of any type on damaged bytes
        return False
    return False


def _load(cache: Path) -> list[Entry]:
    """Read a cached index; empty if there is none, or if it is damaged."""
    try:
        content = read_json(cache)
        SCHEMA.check(content)
        fits = content["checksum"] == _checksum(content["files"])
        return [Entry(*row) for row in content["files"]] if fits else []
    except (OSError, ValueError):
        return []


def _checksum(rows: Sequence[Sequence[object]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _save(cache: Path, entries: Sequence[Entry]) -> None:
    rows = [astuple(entry) for entry in entries]
    try:
        with replacing(cache) as draft:
            draft.write_text(
                json.dumps({"version": VERSION, "checksum": _checksum(rows), "files": rows}), encoding="utf-8"
            )
    except OSError as error:
        log.warning("The index cannot be stored at %s (%s): the next run will read the images again", cache, error)
