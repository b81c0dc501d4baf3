"""Extract untrusted archives: nothing is written outside the target folder, and nothing incomplete is left behind."""

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
from coft.core.untrusted import is_archive, open_file

BROKEN = (
    *(tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, EOFError, zlib.error, struct.error),
    *(zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError),  # RuntimeError: encrypted
    *(ValueError, OverflowError, IndexError, KeyError, TypeError),  # from invalid values in headers
)
KINDS = (".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2")
SCRATCH = ".extract-"  # prefix of temporary folders
ABANDONED = 24 * 3600  # seconds after which a temporary folder is removed; no archive takes that long
HEADER = 512  # bytes that each member counts in addition, so that the number of empty members is limited, too
MOST = 100  # largest ratio of unpacked to packed size: images hardly compress
SLACK = 64 << 20  # bytes that any archive may unpack to, however small it is


class Hostile(UserError):
    """An archive that would write outside its folder, contains links, or unpacks to too many bytes."""


def extract(archive: Path, root: Path, moves: Mapping[str, str], inner: str = "") -> None:
    """Extract an archive to a temporary folder, and move some of its paths into place.

    Args:
        archive: A tar file, compressed or not, or a zip file. A damaged archive is removed, to be downloaded again.
        root: Data root.
        moves: Paths in the archive, and their new paths below `root`.
        inner: Path of a nested archive that holds these paths, if it is not the archive itself.

    Raises:
        UserError: If the archive is damaged, would write outside its folder or lacks a path, or the disk is full.
    """
    root.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=root) as scratch:
        folder = Path(scratch) / "outer"
        try:
            unpack(archive, folder)
            if inner:
                unpack(folder / inner, Path(scratch) / "inner")
                folder = Path(scratch) / "inner"
        except Hostile:
            archive.unlink(missing_ok=True)
            raise
        except BROKEN as error:
            raise _broken(archive, error) from error
        except FileNotFoundError as error:
            raise UserError(f"{archive.name}: no {inner} in it; it is another archive than expected") from error
        except OSError as error:
            if error.errno is None:  # bz2 raises a plain OSError for damaged data
                raise _broken(archive, error) from error
            raise UserError(
                f"{archive.name} cannot be extracted to {root} ({error.strerror or error}); "
                f"see to space and permissions"
            ) from error
        for source, target in moves.items():
            _move(folder / source, root / target, archive)


def _broken(archive: Path, error: Exception) -> UserError:
    """Remove a damaged archive. Returns the error to raise."""
    archive.unlink(missing_ok=True)
    reason = str(error).split("\n")[0].rstrip(":") or type(error).__name__
    kind = f"is an incomplete {archive.suffix[1:]} file" if archive.suffix in KINDS else "is damaged"
    return UserError(f"{archive.name} {kind} ({reason}) and was removed; run this again")


def _remove_abandoned(root: Path) -> None:
    """Remove the temporary folders of processes that were killed."""
    for abandoned in root.glob(f"{SCRATCH}*"):
        with suppress(OSError):
            if time.time() - abandoned.stat().st_mtime > ABANDONED:
                shutil.rmtree(abandoned, ignore_errors=True)


def _move(source: Path, target: Path, archive: Path) -> None:
    if not source.exists():
        raise UserError(f"{archive.name}: no {source.name} in it; it is another archive than expected")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    elif target.is_dir() and source.is_dir():  # for example the folder of a data set that already has a split file
        for child in list(source.iterdir()):
            _move(child, target / child.name, archive)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive to a new folder.

    Raises:
        FileNotFoundError: If there is no such archive.
        UserError: If a member would be written outside the folder or is a link, or the archive unpacks to too much.
    """
    folder.mkdir()
    if not archive.is_file():
        raise FileNotFoundError(archive)
    if archive.suffix == ".zip" or is_archive(archive):
        _unpack_zip(archive, folder)
    else:
        _unpack_tar(archive, folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UserError("this Python cannot extract archives safely; update it to 3.10.12, 3.11.4 or later")
    with open_file(archive) as file, tarfile.open(fileobj=file) as tar:
        try:
            room, needed = Room(archive, folder), 0
            for member in tar:
                needed += member.size + HEADER
                room.check(needed)
                if PurePosixPath(member.name).is_absolute():
                    raise _hostile(archive, member.name, "leads outside")
                if member.issym() or member.islnk():
                    raise _hostile(archive, member.name, "is a link")
                tar.extract(member, folder, filter="data")
        except tarfile.FilterError as error:
            raise _hostile(archive, error.tarinfo.name, "leads outside, or is no plain file") from error
        if not tar.getmembers():
            raise tarfile.ReadError("it is empty")
        while tar.fileobj and tar.fileobj.read(1 << 20):
            pass  # read to the end, where the checksum is stored


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as zip_file:
        members = zip_file.infolist()
        for member in members:
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or not path.parts or ".." in path.parts or ":" in path.parts[0]:
                raise _hostile(archive, member.filename, "leads outside")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _hostile(archive, member.filename, "is a link")
        Room(archive, folder).check(sum(member.file_size + HEADER for member in members))
        zip_file.extractall(folder)


class Room:
    """Limit of the bytes that an archive may unpack to.

    Args:
        archive: Path of the archive.
        folder: Folder that it is unpacked to.
    """

    def __init__(self, archive: Path, folder: Path) -> None:
        self.archive, self.folder = archive, folder
        self.free = shutil.disk_usage(folder).free
        self.limit = SLACK + MOST * archive.stat().st_size

    def check(self, needed: int) -> None:
        """Check that the disk has room for `needed` bytes, and that an honest archive could unpack to them.

        Raises:
            Hostile: If an archive of this size should not unpack to so much.
            UserError: If the disk has not enough free space.
        """
        if needed > self.limit:
            raise _hostile(self.archive, "", f"unpacks to {needed >> 20} MiB or more")
        if needed > self.free:
            raise UserError(
                f"{self.archive.name} holds {needed >> 20} MiB or more, {self.free >> 20} are free at "
                f"{os.fspath(self.folder.parent)}; make room there"
            )


def _hostile(archive: Path, member: str, problem: str) -> Hostile:
    reason = f"{member!r} in it {problem}" if member else f"it {problem}"
    return Hostile(f"{archive.name}: {reason}; it was removed, and nothing extracted: get it elsewhere")
