"""An index of the images in a user's folder: what each file holds, read once and remembered between runs."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image

from coft.images.reading import FORMATS, SUFFIXES, decode_image, read_bytes
from coft.runtime.errors import UserError
from coft.runtime.files import replacing
from coft.runtime.places import cache_folder
from coft.runtime.threads import map_threaded

log = logging.getLogger(__name__)
CACHE = cache_folder() / "folders"
VERSION = 1
SMALL = 4096  # bytes; smaller files are decoded to see whether they can be, larger ones are looked over
JPEG_TAIL = 4096  # bytes at the end in which a JPEG's end mark is looked for: some writers append to it


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the index.

    Attributes:
        path: Below the folder, with slashes.
        size: In bytes.
        modified: Nanoseconds since the epoch.
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
    known = {(e.path, e.size, e.modified): e for e in _load(cache)}
    found = sorted(list_images(folder), key=lambda entry: entry.path)
    new = [entry for entry in found if (entry.path, entry.size, entry.modified) not in known]
    known |= {(e.path, e.size, e.modified): e for e in map_threaded(partial(look_at, folder), new, "index images")}
    entries = [known[entry.path, entry.size, entry.modified] for entry in found]
    log.info("Images in %s: %d, of which %d were read anew", folder, len(found), len(new))
    if new:
        _save(cache, entries)
    return entries


def list_images(folder: Path) -> Iterator[Entry]:
    """List files with an image's suffix below a folder, to any depth; a folder that is linked in a circle comes once.

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
                    elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122
                        yield _listed(entry, prefix)
        except OSError as error:
            raise UserError(f"folder {place} cannot be listed ({error.strerror}); see to its permissions") from error


def _listed(entry: os.DirEntry[str], prefix: str) -> Entry:
    try:
        status = entry.stat()
    except OSError:  # a link to nothing
        return Entry(prefix + entry.name, -1, 0)
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
        return Entry(prefix + entry.name, status.st_size, status.st_mtime_ns, problem="no plain file")
    return Entry(prefix + entry.name, status.st_size, status.st_mtime_ns)


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
        return "not enough memory to decode it"
    return ""


def _looks_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG is certainly not cut off; False where only decoding can tell."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.format == "JPEG":
                return b"\xff\xd9" in data[-JPEG_TAIL:]
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
        content = json.loads(cache.read_text(encoding="utf-8"))
        return [Entry(*row) for row in content["files"]] if content["version"] == VERSION else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _save(cache: Path, entries: Sequence[Entry]) -> None:
    rows = [astuple(entry) for entry in entries]
    try:
        with replacing(cache) as draft:
            draft.write_text(json.dumps({"version": VERSION, "files": rows}), encoding="utf-8")
    except OSError as error:
        log.warning("The index cannot be kept at %s (%s): the next run will read the images again", cache, error)
