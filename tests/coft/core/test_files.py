"""Files are replaced as a whole, through links and pipes; bad paths are refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from coft.core import files
from coft.core.errors import UserError
from coft.core.files import check_disk_space, check_suffix, given_path, replacing, write_table


def write(path: Path, text: str = "new") -> None:
    with replacing(path) as draft:
        draft.write_text(text)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"] and path.read_text() == "old"


def test_the_target_of_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "there").write_text("old")
    for link, target in (("one", "folder/there"), ("two", "one"), ("nothing", "folder/new")):
        (tmp_path / link).symlink_to(target)
        write(tmp_path / link, link)
        assert (tmp_path / link).is_symlink() and (tmp_path / target).read_text() == link


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_a_pipe_is_written_through(delay: float, tmp_path: Path) -> None:
    def read() -> str:
        time.sleep(delay)  # the reader may come after the writer
        return (tmp_path / "pipe").read_text()

    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as reader:
        content = reader.submit(read)
        write(tmp_path / "pipe", "x" * 100_000)
        assert content.result(5) == "x" * 100_000
    assert (tmp_path / "pipe").is_fifo() and [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_waiting_for_the_reader_of_a_pipe_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device or address"):
        write(tmp_path / "pipe")


def test_a_link_to_a_device_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(os.devnull)
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and Path(os.devnull).is_char_device()


def test_standard_output_is_appended_to(tmp_path: Path) -> None:
    code = "from pathlib import Path; from tests.coft.core.test_files import write; write(Path('/dev/stdout'))"
    with (tmp_path / "file").open("w") as file:
        file.write("before ")
        file.flush()
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "file").read_text() == "before new"


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path.name)], ids=["folder", "circle"])
def test_folders_and_circular_links_are_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "place")
    with pytest.raises(OSError):
        write(tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_carriage_return_in_a_cell_is_quoted(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["a\rb.png", "plain.png"]})
    write_table(table, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes() == b'path\n"a\rb.png"\nplain.png\n'


def test_a_full_disk_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(total=8192, free=4096))
    with pytest.raises(UserError, match=r"4 kB are free.*make room"):
        check_disk_space(tmp_path)


@pytest.mark.parametrize("value", [None, 5, "", "a\0b", b"a", [], True])
def test_a_value_that_is_no_path_is_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"output is .*expected a path"):
        given_path(value, "output")


@pytest.mark.parametrize("name", ["photo.png", "table.xlsx", "no/new.json"])
def test_a_file_with_another_suffix_is_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"--output .*{name}: expected a name that ends in \.csv or \.txt"):
        check_suffix("--output", tmp_path / name, (".csv", ".txt"))


@pytest.mark.parametrize("name", ["old.CSV", "old", "new.txt", "no.png/new"])
def test_a_suffix_of_a_table_is_allowed(name: str, tmp_path: Path) -> None:
    check_suffix("--output", tmp_path / name, (".csv", ".txt"))
    check_suffix("--output", None, (".csv",))
