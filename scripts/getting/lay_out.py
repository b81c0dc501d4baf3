"""Download a data set, as far as possible, and put its files in place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from coft.core.errors import UserError
from datasets.torchvision_sets import SETS, split_file, write_set

from .download import download, download_drive
from .extract import extract
from .sources import ORIGINS, TORCHVISION, File, Origin

log = logging.getLogger(__name__)


def is_in_place(name: str, root: Path) -> bool:
    """Return whether a data set is in place."""
    if name in TORCHVISION:
        folder = root / SETS[TORCHVISION[name]].folder
        sorted_by_class = all((folder / part).is_dir() for part in ("train", "test"))
        return split_file(TORCHVISION[name], root).is_file() or sorted_by_class
    origin = ORIGINS[name]
    path_lists = (paths for paths in (origin.needs, origin.sorted_paths) if paths)
    return any(all((root / path).exists() for path in paths) for paths in path_lists) or origin.find(root) is not None


def get(name: str, root: Path) -> list[str]:
    """Download a data set, except for files that require a login.

    Args:
        name: A key of ORIGINS or TORCHVISION.
        root: Data root.

    Returns:
        A line for each optional file that could not be downloaded.

    Raises:
        UserError: If a needed file could not be downloaded.
    """
    if name in TORCHVISION:
        get_from_torchvision(TORCHVISION[name], root)
        return []
    origin = ORIGINS[name]
    notes = _get_drive_files(origin, root)
    for file in origin.files:
        get_file(file, root, origin)
    return notes


def get_file(file: File, root: Path, origin: Origin) -> None:
    """Download a file and put its paths in place, unless all of them exist.

    Args:
        file: File to download.
        root: Data root.
        origin: Data set that the file belongs to.

    Raises:
        UserError: If the file cannot be downloaded, or lacks a path.
    """
    if all(target in origin.needs and (root / target).exists() for target in file.moves.values()):
        return
    name = Path(urlsplit(file.url).path).name
    plain_path = file.moves.get("")
    download_path = root / plain_path if plain_path else root / origin.folder / name
    _download_from_one(file, download_path)
    if not plain_path:
        extract(download_path, root, file.moves, file.inner)
        download_path.unlink()


def _download_from_one(file: File, path: Path) -> None:
    try:
        download(file.url, path, file.md5)
    except UserError as error:
        if not file.mirror:
            raise
        log.warning("%s; trying another address", error.line)
        download(file.mirror, path, file.md5)


def get_split(name: str, root: Path) -> list[str]:
    """Download CoOp's split file of a data set that is in place, unless it exists. Returns the same as `get`."""
    origin = ORIGINS.get(name)
    return _get_drive_files(origin, root) if origin and (root / origin.folder).is_dir() else []


def _get_drive_files(origin: Origin, root: Path) -> list[str]:
    """Download files from Google Drive. Split files are optional: without one, a split is made."""
    notes = []
    for target, drive_id in origin.drive.items():
        path = root / target
        if path.is_file():
            continue
        if path.suffix == ".zip":
            if not (root / origin.needs[0]).exists():
                download_drive(drive_id, path)
                extract(path, root, {Path(need).name: need for need in origin.needs})
                path.unlink()
            continue
        try:
            download_drive(drive_id, path)
        except UserError as error:
            notes.append(error.line)
    return notes


def get_from_torchvision(name: str, root: Path) -> None:
    """Let torchvision download and check a set, and write its images.

    Args:
        name: Name of torchvision's class.
        root: Data root.

    Raises:
        UserError: If torchvision fails.
    """
    from torchvision import datasets as tv

    torchvision_class: Callable[..., object] = getattr(tv, name)
    folder = root / SETS[name].folder
    try:
        for options in SETS[name].parts.values():
            torchvision_class(str(folder), download=True, **options)
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError
        reason = str(getattr(error, "reason", error)).split("\n")[0]
        raise UserError(
            f"{SETS[name].folder}: torchvision could not download it ({reason}); are you offline? Run it again"
        ) from error
    write_set(name, root)
