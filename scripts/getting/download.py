"""Downloads that are whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from coft.core.errors import UserError

CHUNK = 1 << 20
ATTEMPTS = 3
TIMEOUT = 60  # seconds without a byte


class Damaged(Exception):
    """What came is not what was to come."""


def download(url: str, path: Path, md5: str = "") -> Path:
    """Download a file, unless it is there and whole.

    It is written under another name and gets its own when length and checksum are right: a file that was cut off, or
    that differs, is fetched again.

    Args:
        url: Where from.
        path: Where to.
        md5: Checksum, where one is known; a file that is there already is compared with it.

    Raises:
        UserError: If it cannot be had, in one line with what to do.
    """
    if path.is_file() and (not md5 or file_md5(path) == md5):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    problem = ""
    for _ in range(ATTEMPTS):
        try:
            found = _receive(url, draft)
            if md5 and found != md5:
                raise Damaged(f"MD5 is {found}, expected {md5}")
            return draft.replace(path)
        except urllib.error.HTTPError as error:
            raise UserError(
                f"{url}: the server says {error.code} {error.reason}; see: bash scripts/data.sh list"
            ) from error
        except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException, Damaged) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror}); see to space and permissions") from error
        finally:
            draft.unlink(missing_ok=True)
    host = urlsplit(url).netloc
    raise UserError(f"{path.name}: no whole download from {host} in {ATTEMPTS} attempts ({problem}); are you offline?")


def _receive(url: str, draft: Path) -> str:
    """Receive a file; returns its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    request = urllib.request.Request(url, headers={"User-Agent": "coft-data"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as reply, draft.open("wb") as file:
        total = int(reply.headers.get("Content-Length") or 0)
        bar = tqdm(desc=draft.stem, total=total or None, unit="B", unit_scale=True, disable=None, leave=False)
        with bar:
            while chunk := reply.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
        if total and file.tell() != total:
            raise Damaged(f"{file.tell()} of {total} bytes came")
    return digest.hexdigest()


def file_md5(path: Path) -> str:
    """MD5 of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def gdown_download(drive_id: str, path: Path) -> None:
    """Download a file from Google Drive to a path. Imported late: only this needs gdown."""
    import gdown

    if gdown.download(id=drive_id, output=str(path), quiet=True) is None:
        raise OSError("Google Drive gave no file")


def download_drive(drive_id: str, path: Path, get: Callable[[str, Path], None] = gdown_download) -> Path:
    """Download a file from Google Drive, unless it is there. A JSON file is read through before it counts.

    Args:
        drive_id: Its id there.
        path: Where to.
        get: What downloads.

    Raises:
        UserError: If it cannot be had.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    try:
        get(drive_id, draft)
        if path.suffix == ".json":
            json.loads(draft.read_text(encoding="utf-8"))
        return draft.replace(path)
    except ImportError as error:
        raise UserError(f"{path.name}: gdown is missing; run: pip install gdown") from error
    except Exception as error:  # gdown has errors of its own, and those of what it is built on
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        if type(error).__module__.startswith("requests"):  # their messages have messages in messages
            reason = f"{type(error).__name__}; are you offline?"
        raise UserError(
            f"{path.name}: not to be had from Google Drive ({reason.rstrip('.:')}); "
            f"get https://drive.google.com/file/d/{drive_id} by hand and put it at {path}"
        ) from error
    finally:
        for left in path.parent.glob(f"{draft.name}*"):
            left.unlink()
