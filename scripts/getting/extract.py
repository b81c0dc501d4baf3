"""Extracting archives that others made: nothing is written outside, nothing half-written stays."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from coft.core.errors import UserError

BROKEN = (
    *(tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, EOFError, zlib.error, struct.error),
    *(zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError),  # the last: encrypted
    *(ValueError, OverflowError, IndexError, KeyError, TypeError),  # what headers of wrong numbers and texts lead to
)
SCRATCH = ".extract-"
ABANDONED = 24 * 3600  # seconds; no archive takes as long
HEADER = 512  # bytes that a member counts for at least, else empty ones without number would
MOST = 100  # times an archive's size that it may unpack to: images hardly shrink
SLACK = 64 << 20  # bytes that any archive may unpack to


class Hostile(UserError):
    """An archive that would write outside its folder."""


def extract(archive: Path, root: Path, moves: Mapping[str, str], inner: str = "") -> None:
    """Extract an archive to a folder of its own, then move what is wanted into place.

    Args:
        archive: A tar file, compressed or not, or a zip file. A damaged one is removed, to be fetched anew.
        root: Folder below which things are put.
        moves: For each wanted path in the archive, its path below `root`.
        inner: Archive within the archive that has the wanted paths.

    Raises:
        UserError: If it is damaged, would write outside, lacks what is wanted, or there is no room for it.
    """
    root.mkdir(parents=True, exist_ok=True)
    _clear(root)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=root) as scratch:
        place = Path(scratch) / "outer"
        try:
            unpack(archive, place)
            if inner:
                unpack(place / inner, Path(scratch) / "inner")
                place = Path(scratch) / "inner"
        except Hostile:
            archive.unlink(missing_ok=True)
            raise
        except BROKEN as error:
            archive.unlink(missing_ok=True)
            reason = str(error).split("\n")[0].rstrip(":") or type(error).__name__
            raise UserError(f"{archive.name} is damaged ({reason}) and was removed; run this again") from error
        except FileNotFoundError as error:
            raise UserError(f"{archive.name}: no {inner} in it; it is another archive than expected") from error
        except OSError as error:
            raise UserError(
                f"{archive.name} cannot be extracted to {root} ({error.strerror or error}); "
                f"see to space and permissions"
            ) from error
        for source, target in moves.items():
            _move(place / source, root / target, archive)


def _clear(root: Path) -> None:
    """Remove what processes left that were killed while they extracted."""
    for left in root.glob(f"{SCRATCH}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)


def _move(source: Path, target: Path, archive: Path) -> None:
    if not source.exists():
        raise UserError(f"{archive.name}: no {source.name} in it; it is another archive than expected")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    elif target.is_dir() and source.is_dir():  # such as a data set's folder with a split file in it already
        for child in list(source.iterdir()):
            _move(child, target / child.name, archive)


def unpack(archive: Path, place: Path) -> None:
    """Unpack an archive whose members all stay within a folder.

    Raises:
        UserError: If one would not.
    """
    place.mkdir()
    if not archive.is_file():
        raise FileNotFoundError(archive)
    if zipfile.is_zipfile(archive):
        _unpack_zip(archive, place)
    else:
        _unpack_tar(archive, place)


def _unpack_tar(archive: Path, place: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UserError("this Python cannot extract archives safely; update it to 3.10.12, 3.11.4 or later")
    with tarfile.open(archive) as tar:
        try:
            room, needed = Room(archive, place), 0
            for member in tar:
                needed += member.size + HEADER
                room.check(needed)
                if PurePosixPath(member.name).is_absolute():
                    raise _hostile(archive, member.name, "leads outside")
                if member.issym() or member.islnk():
                    raise _hostile(archive, member.name, "is a link")
                tar.extract(member, place, filter="data")
        except tarfile.FilterError as error:
            raise _hostile(archive, error.tarinfo.name, "leads outside, or is no plain file") from error
        if not tar.getmembers():
            raise tarfile.ReadError("it is empty")
        while tar.fileobj and tar.fileobj.read(1 << 20):
            pass  # to the end, where the checksum of what was compressed stands


def _unpack_zip(archive: Path, place: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = zipped.infolist()
        for member in members:
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or not path.parts or ".." in path.parts or ":" in path.parts[0]:
                raise _hostile(archive, member.filename, "leads outside")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _hostile(archive, member.filename, "is a link")
        Room(archive, place).check(sum(member.file_size + HEADER for member in members))
        zipped.extractall(place)


class Room:
    """How much an archive may unpack to.

    Args:
        archive: The file.
        place: Where it is unpacked.
    """

    def __init__(self, archive: Path, place: Path) -> None:
        self.archive, self.place = archive, place
        self.free = shutil.disk_usage(place).free
        self.most = SLACK + MOST * archive.stat().st_size

    def check(self, needed: int) -> None:
        """Refuse a number of bytes that is more than there is room for, or than an honest archive has."""
        if needed > self.most:
            raise _hostile(self.archive, "", f"unpacks to {needed >> 20} MiB or more")
        if needed > self.free:
            raise UserError(
                f"{self.archive.name} holds {needed >> 20} MiB or more, {self.free >> 20} are free at "
                f"{os.fspath(self.place.parent)}; make room there"
            )


def _hostile(archive: Path, member: str, why: str) -> Hostile:
    what = f"{member!r} in it {why}" if member else f"it {why}"
    return Hostile(f"{archive.name}: {what}; it was removed, and nothing extracted: get it elsewhere")
