"""Index of the images in a user's folder: hash and problem of each file."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image

from coft.core.errors import UserError
from coft.core.threads import map_threaded
from coft.images.reading import FORMATS, SUFFIXES, UnreadableImage, check_sides, check_size, decode_image, read_bytes

log = logging.getLogger(__name__)
UNREAD_SUFFIXES = {".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw"}
SMALL = 4096  # files up to this many bytes are decoded to check them; larger files are checked faster
NO_MEMORY = "not enough memory to decode it"
JPEG_TAIL = 4096  # a JPEG must have its end marker in its last bytes, not at the very end: some writers append data


@dataclass(frozen=True, slots=True)
class Entry:
    """Entry of the index, for one file.

    Attributes:
        path: Path relative to the folder, with slashes.
        digest: SHA-256 of the content, in hexadecimal; empty if the file has not been read.
        problem: Reason why the file cannot be read as an image; empty if it can.
    """

    path: str
    digest: str = ""
    problem: str = ""


def index_folder(folder: Path) -> list[Entry]:
    """Index the images below a folder.

    Args:
        folder: Folder to search recursively, following links. Hidden files and folders are skipped.

    Returns:
        Entries of files with an image suffix, sorted by path.

    Raises:
        UserError: If the folder cannot be listed.
    """
    other_kinds: Counter[str] = Counter()
    files = sorted(list_images(folder, other_kinds), key=lambda entry: entry.path)
    entries = list(map_threaded(partial(read_entry, folder), files, "index images"))
    log.info("Images in %s: %d", folder, len(files))
    if other_kinds:
        counts = ", ".join(f"{suffix} {count}" for suffix, count in other_kinds.most_common())
        log.warning("Images of unsupported formats in %s are skipped: %s; convert them to JPEG or PNG", folder, counts)
    return entries


def list_images(
    folder: Path,
    other_kinds: Counter[str] | None = None,
    listed: set[tuple[int, int]] | None = None,
    shown: str = "",
) -> Iterator[Entry]:
    """Yield files with an image suffix below a folder by name, files before folders.

    Each folder is listed once, even if links are circular. A subfolder that cannot be listed is yielded as an entry
    with a problem.

    Args:
        folder: Folder to search recursively. Hidden files and folders are skipped.
        other_kinds: Counter to which image files of unsupported formats are added, by suffix.
        listed: Folders that were listed before, by `identity`, to which those below `folder` are added.
        shown: Name of the folder in the error message; default: its path.

    Raises:
        UserError: If `folder` itself cannot be listed.
    """
    stack, listed = [""], set() if listed is None else listed
    while stack:
        below = stack.pop()
        path = folder / below
        try:
            if (this := identity(path)) in listed:
                continue
            listed.add(this)
            with os.scandir(path) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
                children = sorted((entry.name, is_folder(entry)) for entry in visible)
        except OSError as error:
            if not below:
                where = shown or folder
                raise UserError(f"folder {where} cannot be listed ({error.strerror}); check its permissions") from error
            yield Entry(below, problem=f"the folder cannot be listed: {error.strerror}")
            continue
        prefix = f"{below}/" if below else ""
        for name in (name for name, has_more in children if not has_more):
            suffix = suffix_of(name)
            if suffix in SUFFIXES:
                yield Entry(prefix + name)
            elif suffix in UNREAD_SUFFIXES and other_kinds is not None:
                other_kinds[suffix] += 1
        stack += [prefix + name for name, has_more in reversed(children) if has_more]


def identity(folder: str | Path) -> tuple[int, int]:
    """Return the device and inode of a folder, which identify it under any path."""
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether a directory entry is a folder. Circular links are not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


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
