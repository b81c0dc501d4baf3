"""The index of a user's folder: images, and broken files."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coft.core.errors import UserError
from coft.images import index
from coft.images.index import SMALL, find_problem, index_folder
from tests.datasets.data_roots import touch, write_image

from .encoding import encode


def noise_file(form: str, size: int = 8, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), form, **options)


def flip_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_all_formats_in_all_subfolders_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    names = ["a.jpg", "b.JPEG", "one/c.png", "one/two three/d.webp", "e.bmp", "f.tif", "one/g.tiff"]
    for seed, name in enumerate(names):
        write_image(folder / name, seed)
    for name in ("notes.txt", ".hidden.png", ".git/h.png", "one/x.gif2"):
        touch(folder / name)
    entries = index_folder(folder)
    assert [entry.path for entry in entries] == sorted(names)
    for entry in entries:
        data = (folder / entry.path).read_bytes()
        assert entry.digest == hashlib.sha256(data).hexdigest() and not entry.problem


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("empty.jpg", b"", "the file is empty"),
        ("text.png", b"hello", "unknown image format"),
        ("cut.jpg", noise_file("JPEG", 64)[:-100], "truncated"),
        ("large cut.jpg", noise_file("JPEG", 400, quality=95)[:-5000], "truncated"),
        ("large cut.png", noise_file("PNG", 400)[:-5000], "truncated|broken"),
        ("large cut.webp", noise_file("WEBP", 400, lossless=True)[:-5000], "."),
        ("flipped.png", flip_bit(noise_file("PNG", 400)), "."),
    ],
)
def test_a_broken_file_has_a_problem(name: str, data: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / name).write_bytes(data)
    (entry,) = index_folder(tmp_path / "images")
    assert entry.problem
    assert re.search(problem, entry.problem), entry.problem
    assert "/" not in entry.problem and "0x" not in entry.problem


def test_the_problem_of_a_file_does_not_depend_on_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "cannot be read (1); or so"
    touch(folder / "text.png")
    (folder / "text.png").write_bytes(b"hello")
    (entry,) = index_folder(folder)
    assert entry.problem == "unknown image format"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_intact_files_have_no_problem(form: str) -> None:
    large = noise_file(form, 400)
    assert len(large) > SMALL
    assert not find_problem(large, "x") and not find_problem(noise_file(form), "x")
    if form == "JPEG":
        assert not find_problem(large + bytes(100), "x")  # cameras append to their files


def test_dangling_and_circular_links(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_image(folder / "a.png", 0)
    (folder / "b.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "again").symlink_to(folder)
    for name in ("itself", "itself.png"):
        (folder / name).symlink_to(name)
    problems = {entry.path: entry.problem for entry in index_folder(folder)}
    message = "Too many levels of symbolic links"
    assert problems == {"a.png": "", "b.png": "No such file or directory", "itself.png": message}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_image(folder / "a.png", 0)
    os.mkfifo(folder / "pipe.png")
    problems = {entry.path: entry.problem for entry in index_folder(folder)}
    assert problems == {"a.png": "", "pipe.png": "no plain file"}


def test_a_subfolder_without_permission_has_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, scandir = tmp_path / "images", os.scandir
    write_image(folder / "a.png", 0)
    write_image(folder / "closed" / "b.png", 1)

    def closed(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    problems = {entry.path: entry.problem for entry in index_folder(folder)}
    assert problems == {"a.png": "", "closed": "the folder cannot be listed: Permission denied"}


def test_an_image_that_is_removed_after_listing_has_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, list_images = tmp_path / "images", index.list_images
    write_image(folder / "a.png", 0)
    write_image(folder / "b.png", 1)

    def list_and_remove(*args: Any) -> Any:
        entries = list(list_images(*args))
        (folder / "b.png").unlink()
        return entries

    monkeypatch.setattr(index, "list_images", list_and_remove)
    problems = {entry.path: entry.problem for entry in index_folder(folder)}
    assert problems == {"a.png": "", "b.png": "No such file or directory"}


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"images cannot be listed \(Permission denied\)"):
        (tmp_path / "images").mkdir()
        index_folder(tmp_path / "images")


def test_a_file_that_cannot_be_read_has_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    def exhausted(*args: object) -> Image.Image:
        raise MemoryError

    folder = tmp_path / "images"
    write_image(folder / "a.png", 0)
    for owner, name, fails, problem in (
        (os, "open", refuse, "Permission denied"),
        (index, "decode_image", exhausted, index.NO_MEMORY),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails)
            assert [entry.problem for entry in index_folder(folder)] == [problem]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    path = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")
    write_image(folder / "a.png", 0).rename(path)
    (entry,) = index_folder(folder)
    assert not entry.problem and (folder / entry.path).is_file()


def test_unsupported_formats_are_counted_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.heic", "b.HEIC", "c.jfif", "notes.txt", "sub/d.avif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert index_folder(tmp_path) == []
    assert ".heic 2, .jfif 1, .avif 1; convert them" in caplog.text
