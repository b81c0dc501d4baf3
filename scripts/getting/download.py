"""Download files completely, or not at all."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from coft.core.errors import UserError
from coft.core.untrusted import digest_of, read_json

CHUNK = 1 << 20  # bytes read at a time
ATTEMPTS = 3
TIMEOUT = 60  # seconds without a byte after which an attempt fails


class Damaged(Exception):
    """A download with a wrong length or checksum."""


def download(url: str, path: Path, md5: str = "") -> Path:
    """Download a file, unless it exists and is complete.

    The file gets its name once length and checksum are right. A truncated or different file is downloaded again.

    Args:
        url: Address of the file.
        path: Path of the file.
        md5: Expected MD5, if it is known. An existing file is compared with it.

    Returns:
        Path of the file.

    Raises:
        UserError: If the file cannot be downloaded or written.
    """
    if path.is_file() and (not md5 or digest_of(path, "md5") == md5):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    problem = ""
    for _ in range(ATTEMPTS):
        try:
            actual = _receive(url, draft)
            if md5 and actual != md5:
                raise Damaged(f"MD5 is {actual}, expected {md5}")
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
    raise UserError(f"{path.name}: incomplete download from {host}, {ATTEMPTS} attempts ({problem}); are you offline?")


def _receive(url: str, draft: Path) -> str:
    """Write the response to a file. Returns its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    request = urllib.request.Request(url, headers={"User-Agent": "coft-data"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, draft.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        bar = tqdm(desc=draft.stem, total=total or None, unit="B", unit_scale=True, disable=None, leave=False)
        with bar:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
        if total and file.tell() != total:
            raise Damaged(f"{file.tell()} of {total} bytes came")
    return digest.hexdigest()


def gdown_download(drive_id: str, path: Path) -> None:
    """Download a file from Google Drive to a path. Imports gdown, which is optional."""
    import gdown

    if gdown.download(id=drive_id, output=str(path), quiet=True) is None:
        raise OSError("Google Drive gave no file")


def download_drive(drive_id: str, path: Path, get: Callable[[str, Path], None] = gdown_download) -> Path:
    """Download a file from Google Drive, unless it exists. A JSON file must be readable to be accepted.

    Args:
        drive_id: Id of the file.
        path: Path of the file.
        get: Function that downloads the file with an id to a path.

    Returns:
        Path of the file.

    Raises:
        UserError: If the file cannot be downloaded.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    try:
        get(drive_id, draft)
        if path.suffix == ".json":
            read_json(draft)
        return draft.replace(path)
    except ImportError as error:
        raise UserError(f"{path.name}: gdown is missing; run: pip install gdown") from error
    except Exception as error:  # raised by gdown or the libraries below it
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        if type(error).__module__.startswith("requests"):  # their messages are long and nested
            reason = f"{type(error).__name__}; are you offline?"
        raise UserError(
            f"{path.name}: cannot be downloaded from Google Drive ({reason.rstrip('.:')}); "
            f"get https://drive.google.com/file/d/{drive_id} by hand and put it at {path}"
        ) from error
    finally:
        for left in path.parent.glob(f"{draft.name}*"):
            left.unlink()
