"""Extraction of archives: layouts, hostile members, damage, bombs."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from coft.core.errors import UserError
from scripts.getting.extract import extract

from .archives import Members, link, tar, write, zipped


@pytest.mark.parametrize("pack", [tar, zipped, lambda m: tar(m, mode="w"), lambda m: tar(m, mode="w:xz")])
def test_folder_of_archive_is_moved_into_place(pack: Callable[[Members], bytes], tmp_path: Path) -> None:
    archive = write(tmp_path / "a", pack({"data/images/x.jpg": b"x", "data/readme": b"r"}))
    extract(archive, tmp_path / "root", {"data/images": "set/images"})
    assert [path.name for path in sorted((tmp_path / "root").rglob("*"))] == ["set", "images", "x.jpg"]


def test_existing_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "root" / "set").mkdir(parents=True)
    split = write(tmp_path / "root" / "set" / "split.json", b"mine")
    archive = write(tmp_path / "a", tar({"set/images/x.jpg": b"x", "set/split.json": b"theirs"}))
    extract(archive, tmp_path / "root", {"set": "set"})
    assert split.read_bytes() == b"mine" and (tmp_path / "root" / "set" / "images" / "x.jpg").is_file()


def test_nested_archive(tmp_path: Path) -> None:
    archive = write(tmp_path / "a", zipped({"one/two.tar.gz": tar({"images/x.jpg": b"x"})}))
    extract(archive, tmp_path / "root", {"images": "set/images"}, inner="one/two.tar.gz")
    assert (tmp_path / "root" / "set" / "images" / "x.jpg").read_bytes() == b"x"


HOSTILE = {
    "tar above": tar({"ok": b"", "../out": b"x"}),
    "tar deep above": tar({"a/../../out": b"x"}),
    "tar absolute": tar({"/tmp/coft-test-out": b"x"}),
    "tar symlink": tar({"ok": b""}, link("a", "../..")),
    "tar link and through it": tar({"ok": b""}, link("a", "/tmp")),
    "tar hard link": tar({"ok": b""}, link("a", "/etc/passwd", tarfile.LNKTYPE)),
    "tar device": tar({"ok": b""}, link("a", "", tarfile.CHRTYPE)),
    "tar pipe": tar({"ok": b""}, link("a", "", tarfile.FIFOTYPE)),
    "zip above": zipped({"ok": b"", "../out": b"x"}),
    "zip above with backslashes": zipped({"..\\out": b"x"}),
    "zip absolute": zipped({"/tmp/coft-test-out": b"x"}),
    "zip drive": zipped({"C:/out": b"x"}),
    "zip symlink": zipped({"a": b"/etc", "a/passwd": b"x"}, links=("a",)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    archive = write(tmp_path / "a", HOSTILE[kind])
    with pytest.raises(UserError, match=r"a: ") as error:
        extract(archive, tmp_path / "root", {"ok": "set"})
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["root"]
    assert not Path("/tmp/coft-test-out").exists()


WHOLE = {"tar": tar({"ok": bytes(range(256)) * 99}), "zip": zipped({"ok": bytes(range(256)) * 99})}
XZ = tar({"ok": bytes(range(256)) * 99}, mode="w:xz")
LONG = tar({"ok": random.Random(0).randbytes(3 << 20)}, mode="w:bz2")  # of several blocks
ENCRYPTED = bytearray(WHOLE["zip"])
for signature, flag_offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
    ENCRYPTED[ENCRYPTED.index(signature) + flag_offset] |= 1
DAMAGED = {
    "xz with flipped bits": XZ[:100] + b"\x00" * 20 + XZ[120:],
    "xz cut off": XZ[:-40],
    "bz2 with flipped bits late": LONG[: 2 << 20] + b"\x00" * 20 + LONG[(2 << 20) + 20 :],
    "gz with a wrong sum": WHOLE["tar"][:-8] + b"\x00" * 8,
    "encrypted zip": bytes(ENCRYPTED),
    "zip cut off": WHOLE["zip"][:-40],
    "tar with flipped bits": WHOLE["tar"][:100] + b"\x00" * 20 + WHOLE["tar"][120:],
    "no archive": b"<html>quota exceeded</html>",
    "empty": b"",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_archives_are_removed(kind: str, tmp_path: Path) -> None:
    archive = write(tmp_path / "a", DAMAGED[kind])
    with pytest.raises(UserError, match=r"a is damaged .*removed; run") as error:
        extract(archive, tmp_path / "root", {"ok": "set"})
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["root"]


@pytest.mark.parametrize(
    "change", [lambda data: data[:-40], lambda data: data[: len(data) // 2], lambda data: b"PK\3\4"]
)
def test_incomplete_zip_file_is_named(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    archive = write(tmp_path / "own.zip", change(WHOLE["zip"]))
    with pytest.raises(UserError, match=r"own\.zip is an incomplete zip file"):
        extract(archive, tmp_path / "root", {"ok": "set"})
    assert not archive.exists()


BOMBS: dict[str, Callable[[], bytes]] = {
    "zip": lambda: _deflated({"ok": bytes(100 << 20)}),
    "zip of many": lambda: _deflated({f"{i}": bytes(1 << 20) for i in range(100)}),
    "tar": lambda: tar({"ok": bytes(100 << 20)}),
    "tar of many": lambda: tar({f"{i}": bytes(1 << 20) for i in range(100)}),
    "tar of nothing": lambda: tar({f"{i}": b"" for i in range(1000)}),
}


def _deflated(members: Members) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "tar of nothing":
        monkeypatch.setattr("scripts.getting.extract.SLACK", 1000)
        monkeypatch.setattr("scripts.getting.extract.MOST", 5)
    archive = write(tmp_path / "a", BOMBS[kind]())
    with pytest.raises(UserError, match=r"a: it unpacks to \d+ MiB"):
        extract(archive, tmp_path / "root", {"ok": "set"})
    assert [p.name for p in tmp_path.rglob("*")] == ["root"]


def test_conflicting_members_are_refused(tmp_path: Path) -> None:
    archive = write(tmp_path / "a", tar({"ok": b"x", "ok/inner": b"x"}))
    with pytest.raises(UserError, match=r"a cannot be extracted to .*root"):
        extract(archive, tmp_path / "root", {"ok": "set"})
    assert archive.exists() and not list((tmp_path / "root").iterdir())


def test_unexpected_archive_is_refused(tmp_path: Path) -> None:
    archive = write(tmp_path / "a", tar({"other/x": b"x"}))
    for options in ({}, {"inner": "in.tar"}):
        with pytest.raises(UserError, match="another archive"):
            extract(archive, tmp_path / "root", {"images": "set/images"}, **options)


def test_archive_larger_than_the_free_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    for data in WHOLE.values():
        with pytest.raises(UserError, match="0 are free"):
            extract(write(tmp_path / "a", data), tmp_path / "root", {"ok": "set"})
