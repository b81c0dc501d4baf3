"""Reading untrusted files."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from coft.core.untrusted import is_archive, open_file, parse_json, read_bytes, read_json, read_table, read_text


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.write_bytes(bytes(11)),
        lambda path: None,
        make_socket,
    ],
    ids=["pipe", "folder", "device", "circle", "too large", "missing", "socket"],
)
def test_only_regular_files_within_the_size_limit_are_opened(
    make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # paths of sockets are limited in length
    make(Path("file"))
    with pytest.raises(OSError) as error, open_file(Path("file"), 10):
        pass
    assert os.fspath(error.value.filename) == "file"


def test_a_path_with_a_null_byte_is_refused() -> None:
    with pytest.raises(OSError, match="null byte"):
        read_bytes("a\0b", 10)


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "file", 10) == b"0123456789"


def test_all_line_endings_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\r\nb\rc\n")
    assert read_text(tmp_path / "file") == "a\nb\nc\n"


@pytest.mark.parametrize("text", ["[" * 100_000, "NaN", "[Infinity]", "9" * 5000, "{", b"\xff", ""])
def test_bad_json_is_a_value_error(text: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
    (tmp_path / "file").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError):
        read_json(tmp_path / "file")


def test_a_table_with_rows_of_other_lengths_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("path,class\na.png,cat\nNA,fox\n")
    assert read_table(path).to_dict("list") == {"path": ["a.png", "NA"], "class": ["cat", "fox"]}
    for rows in ("a.png,cat,0.5\nb.png,cat,0.5\n", "a.png,cat\nb.png,cat,0.5\n"):
        path.write_text(f"path,class\n{rows}")
        with pytest.raises(ValueError):
            read_table(path)


def test_an_archive_of_several_disks_is_refused(tmp_path: Path) -> None:
    """`zipfile.is_zipfile` raises for such a file."""
    end64 = b"PK\x06\x07" + bytes(4) + bytes(8) + (2).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + bytes(100) + end64 + b"PK\x05\x06" + bytes(18))
    assert not is_archive(tmp_path / "a.zip")


def test_a_failed_read_names_the_file() -> None:
    with pytest.raises(OSError) as error:
        read_bytes("/proc/self/mem", 10)
    assert error.value.filename == "/proc/self/mem"
