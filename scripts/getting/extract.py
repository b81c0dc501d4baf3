"""Extracting archives that others made: nothing is written outside, nothing half-written stays."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from datasets.errors import UserError

BROKEN = (tarfile.ReadError, zipfile.BadZipFile, EOFError, zlib.error, zipfile.LargeZipFile, NotImplementedError)


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
    with tempfile.TemporaryDirectory(prefix=".extract-", dir=root) as scratch:
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
        for source, target in moves.items():
            _move(place / source, root / target, archive)


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
            for member in tar:
                if PurePosixPath(member.name).is_absolute():
                    raise _hostile(archive, member.name, "leads outside")
                if member.issym() or member.islnk():
                    raise _hostile(archive, member.name, "is a link")
                tar.extract(member, place, filter="data")
        except tarfile.FilterError as error:
            raise _hostile(archive, error.tarinfo.name, "leads outside, or is no plain file") from error
        if not tar.getmembers():
            raise tarfile.ReadError("it is empty")


def _unpack_zip(archive: Path, place: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = zipped.infolist()
        for member in members:
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise _hostile(archive, member.filename, "leads outside")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _hostile(archive, member.filename, "is a link")
        _see_to_room(archive, sum(member.file_size for member in members), place)
        zipped.extractall(place)


def _see_to_room(archive: Path, needed: int, place: Path) -> None:
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(f"{archive.name} holds {needed >> 20} MiB, {free >> 20} are free at {os.fspath(place.parent)}")


def _hostile(archive: Path, member: str, why: str) -> Hostile:
    return Hostile(f"{archive.name}: {member!r} in it {why}; it was removed, and nothing extracted: get it elsewhere")
