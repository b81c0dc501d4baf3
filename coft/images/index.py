"""An index of the images in a user's folder: what each file holds, read once and remembered between runs."""

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
from coft.core.files import read_json, replacing
from coft.core.paths import cache_folder
from coft.core.threads import map_threaded
from coft.images.reading import FORMATS, SUFFIXES, check_sides, check_size, decode_image, read_bytes

log = logging.getLogger(__name__)
CACHE = cache_folder() / "folders"
VERSION = 2
OTHERS = {".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif", ".gif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw"}
SMALL = 4096  # bytes; smaller files are decoded to see whether they can be, larger ones are looked over
NO_MEMORY = "not enough memory to decode it"
JPEG_TAIL = 4096  # bytes at the end in which a JPEG's end mark is looked for: some writers append to it


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the index.

    Attributes:
        path: Below the folder, with slashes.
        size: In bytes.
        modified: When it was changed, in nanoseconds since the epoch: by what it says itself, or by the file system,
            which knows of changes that keep a file's date.
        digest: SHA-256 of the content, in hexadecimal.
        problem: Why it is no image that can be read; empty where it is one.
    """

    path: str
    size: int
    modified: int
    digest: str = ""
    problem: str = ""


def index_folder(folder: Path) -> list[Entry]:
    """Index the images below a folder; files that have not changed since the last time are not read again.

    Args:
        folder: Looked through to any depth, linked folders included; hidden files and folders are left out.

    Returns:
        Files with an image's suffix, in order of their paths.

    Raises:
        UserError: If the folder cannot be listed.
    """
    cache = CACHE / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"
    # What could not be read is looked at again: permissions, drives and memory come and go without a trace in a file.
    looked_at = [entry for entry in _load(cache) if entry.digest and entry.problem != NO_MEMORY]
    known = {(e.path, e.size, e.modified): e for e in looked_at}
    not_read: Counter[str] = Counter()
    found = sorted(list_images(folder, not_read), key=lambda entry: entry.path)
    new = [entry for entry in found if (entry.path, entry.size, entry.modified) not in known]
    known |= {(e.path, e.size, e.modified): e for e in map_threaded(partial(look_at, folder), new, "index images")}
    entries = [known[entry.path, entry.size, entry.modified] for entry in found]
    log.info("Images in %s: %d, of which %d were read anew", folder, len(found), len(new))
    if not_read:
        counts = ", ".join(f"{suffix} {count}" for suffix, count in not_read.most_common())
        log.warning("Images of other kinds in %s are left out: %s; convert them to JPEG or PNG", folder, counts)
    if new:
        _save(cache, entries)
    return entries


def list_images(folder: Path, not_read: Counter[str] | None = None) -> Iterator[Entry]:
    """List files with an image's suffix below a folder, to any depth; a folder that is linked in a circle comes once.

    Args:
        folder: The folder.
        not_read: Counts files of kinds that are images, too, by suffix, and are not read.

    Raises:
        UserError: If a folder cannot be listed.
    """
    stack, seen = [(str(folder), "")], set()
    while stack:
        place, prefix = stack.pop()
        try:
            status = os.stat(place)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        stack.append((entry.path, f"{prefix}{entry.name}/"))
                        continue
                    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
                    if suffix in SUFFIXES:
                        yield _listed(entry, prefix)
                    elif suffix in OTHERS and not_read is not None:
                        not_read[suffix] += 1
        except OSError as error:
            raise UserError(f"folder {place} cannot be listed ({error.strerror}); see to its permissions") from error


def _listed(entry: os.DirEntry[str], prefix: str) -> Entry:
    try:
        status = entry.stat()
    except OSError:  # a link to nothing
        return Entry(prefix + entry.name, -1, 0)
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    problem = "" if stat.S_ISREG(status.st_mode) else "no plain file"  # reading a pipe would never end
    return Entry(prefix + entry.name, status.st_size, changed, problem=problem)


def look_at(folder: Path, entry: Entry) -> Entry:
    """Read a file: hash it, and see whether it is an image."""
    path = folder / entry.path
    if entry.problem:
        return entry
    try:
        data = read_bytes(path)
    except UserError as error:
        return replace(entry, problem=_reason(error))
    return replace(entry, digest=hashlib.sha256(data).hexdigest(), problem=find_problem(data, path))


def find_problem(data: bytes, path: str | Path) -> str:
    """Say what is wrong with an image file, or nothing.

    Small files are decoded. Of large ones, JPEG and PNG are looked over at a fraction of the cost: whether they open
    and have an end, and a PNG's checksums. What passes that and yet cannot be decoded is named when it is read.
    """
    if not data:
        return "the file is empty"
    try:
        if len(data) > SMALL and _looks_whole(data):
            return ""
        decode_image(data, path)
    except UserError as error:
        return _reason(error)
    except MemoryError:
        return NO_MEMORY
    return ""


def _looks_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG is certainly not cut off; False where only decoding can tell."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_sides(*image.size)
            if image.format == "JPEG":
                return b"\xff\xd9" in data[-JPEG_TAIL:]
            check_size(*image.size)  # a JPEG is read at a fraction of it
            if image.format == "PNG":
                image.verify()  # reads all chunks and compares their checksums
                return b"IEND" in data[-64:]
    except Exception:  # decoders raise what they like on bytes that are damaged
        return False
    return False


def _reason(error: UserError) -> str:
    text = error.line
    return text[text.index("cannot be read (") + len("cannot be read (") :].rsplit(");", 1)[0]


def _load(cache: Path) -> list[Entry]:
    """Read an index that an earlier run wrote; nothing if there is none that can be used."""
    try:
        content = read_json(cache)
        if content["version"] != VERSION or content["checksum"] != _checksum(content["files"]):
            return []
        return [Entry(*row) for row in content["files"]]
    except (OSError, ValueError, KeyError, TypeError):
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
        log.warning("The index cannot be kept at %s (%s): the next run will read the images again", cache, error)
