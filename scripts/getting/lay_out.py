"""Bringing a data set to its place: what can be downloaded is, the rest is said."""

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


def is_there(name: str, root: Path) -> bool:
    """Whether a data set is in place."""
    if name in TORCHVISION:
        folder = root / SETS[TORCHVISION[name]].folder
        return split_file(TORCHVISION[name], root).is_file() or all((folder / p).is_dir() for p in ("train", "test"))
    origin = ORIGINS[name]
    listed = (paths for paths in (origin.needs, origin.sorted) if paths)
    return any(all((root / path).exists() for path in paths) for paths in listed) or origin.find(root) is not None


def get(name: str, root: Path) -> list[str]:
    """Get a data set, as far as it can be had without a login.

    Args:
        name: A name of ORIGINS or TORCHVISION.
        root: Folder of all data sets.

    Returns:
        What could not be had and is not needed, a line each.

    Raises:
        UserError: If something that is needed could not be had.
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
    """Download a file, and put what is wanted of it in place; nothing if all that is needed of it is there.

    Raises:
        UserError: If it cannot be had, or is not what is expected.
    """
    if all(target in origin.needs and (root / target).exists() for target in file.moves.values()):
        return
    name = Path(urlsplit(file.urls[0]).path).name
    plain = file.moves.get("")
    path = root / plain if plain else root / origin.folder / name
    _download_from_one(file, path)
    if not plain:
        extract(path, root, file.moves, file.inner)
        path.unlink()


def _download_from_one(file: File, path: Path) -> None:
    for url in file.urls[:-1]:
        try:
            download(url, path, file.md5)
            return
        except UserError as error:
            log.warning("%s; trying another address", error.line)
    download(file.urls[-1], path, file.md5)


def _get_drive_files(origin: Origin, root: Path) -> list[str]:
    """Get files from Google Drive; split files are not needed: without one, the data set is split anew."""
    notes = []
    for target, drive_id in origin.drive.items():
        path = root / target
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
    """Let torchvision download a set and check it, then write its images out.

    Raises:
        UserError: If it cannot.
    """
    from torchvision import datasets as tv

    maker: Callable[..., object] = getattr(tv, name)
    folder = root / SETS[name].folder
    try:
        for options in SETS[name].parts.values():
            maker(str(folder), download=True, **options)
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError
        reason = str(getattr(error, "reason", error)).split("\n")[0]
        raise UserError(
            f"{SETS[name].folder}: torchvision could not download it ({reason}); are you offline? Run it again"
        ) from error
    write_set(name, root)
