"""Sorting of files into folders of classes: nothing is overwritten, and all can be undone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coft.core.errors import UserError
from coft.inference import sorting
from coft.inference.sorting import LONGEST, Sorter, folder_names
from coft.inference.undo_journal import find_journal, undo
from tests.coft.inference.conftest import limit_file_size


@given(st.lists(st.text(max_size=120), max_size=6, unique=True))
def test_folder_names_are_safe_and_unique(classes: list[str]) -> None:
    names = folder_names(classes)
    assert len({name.casefold() for name in names}) == len(classes)
    for name in names:
        assert name and "/" not in name and "\\" not in name and "\0" not in name and name[0] != "."
        assert len(name.encode()) <= LONGEST + 10


def test_safe_names_are_kept() -> None:
    assert folder_names(["tabby cat", "Größe", "a/b", "a\\b", "A_B", "..", "con"]) == [
        "tabby cat", "Größe", "a_b", "a_b-2", "A_B-3", "_", "_con"
    ]  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("sorted-")
    }


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("one/x.jpg", "two/x.jpg", "y.jpg"):
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_text(name)
    return tmp_path / "from"


def refuse(*args: Any, **kwargs: Any) -> None:
    raise OSError(18, "Invalid cross-device link")


@pytest.fixture(params=["", "across"])
def link_support(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Move within a file system, or between two, where hard links fail."""
    if request.param:
        monkeypatch.setattr(os, "link", refuse)
    return request.param


def sort_all(files: Path, folder: Path, link: bool = False) -> Path:
    sorter = Sorter(folder, ["cat", "dog"], link)
    for name, kind in (("one/x.jpg", "cat"), ("two/x.jpg", "cat"), ("y.jpg", "dog")):
        sorter.put(files / name, kind)
    sorter.close()
    return sorter.journal


def test_files_are_moved_and_restored(files: Path, tmp_path: Path, link_support: str) -> None:
    before, folder = contents(files), tmp_path / "to"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "x.jpg").write_text("was here")
    journal = sort_all(files, folder)
    moved = {"cat/x-2.jpg": "one/x.jpg", "cat/x-3.jpg": "two/x.jpg", "dog/y.jpg": "y.jpg"}
    assert contents(folder) == {"cat/x.jpg": "was here"} | moved and not contents(files)
    assert undo(journal) == (3, 0)
    assert contents(files) == before and contents(folder) == {"cat/x.jpg": "was here"}
    assert not (folder / "dog").exists() and not journal.exists()


def test_a_long_name_that_is_taken_is_cut(tmp_path: Path) -> None:
    name = 125 * "é" + ".jpg"
    sorter = Sorter(tmp_path / "to", ["cat"], link=False)
    for folder in "one", "two":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(folder)
        sorter.put(tmp_path / folder / name, "cat")
    assert contents(tmp_path / "to" / "cat") == {name: "one", 120 * "é" + "-2.jpg": "two"}


def test_links_are_made_and_removed(files: Path, tmp_path: Path) -> None:
    before = contents(files)
    journal = sort_all(files, tmp_path / "to", link=True)
    assert contents(files) == before
    assert (tmp_path / "to" / "cat" / "x-2.jpg").resolve() == (files / "two" / "x.jpg").resolve()
    (tmp_path / "to" / "cat" / "x-3.jpg").symlink_to(files / "y.jpg")
    linked = set((tmp_path / "to").rglob("*.jpg"))
    again = sort_all(files, tmp_path / "to", link=True)
    assert set((tmp_path / "to").rglob("*.jpg")) == linked and not again.exists()
    (tmp_path / "to" / "cat" / "x-3.jpg").unlink()
    assert undo(journal) == (3, 0)
    assert contents(files) == before and not (tmp_path / "to").exists()


def test_undo_overwrites_nothing_and_counts_what_it_leaves(files: Path, tmp_path: Path, link_support: str) -> None:
    journal = sort_all(files, tmp_path / "to")
    (files / "y.jpg").write_text("another")
    (tmp_path / "to" / "cat" / "x.jpg").unlink()
    assert undo(journal) == (1, 2) and journal.exists()
    assert contents(files) == {"two/x.jpg": "two/x.jpg", "y.jpg": "another"}
    assert contents(tmp_path / "to") == {"dog/y.jpg": "y.jpg"}


def test_an_interrupted_sort_can_be_undone(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal has a move before it is made, also one that is half done."""
    before = contents(files)
    sorter = Sorter(tmp_path / "to", ["cat"], False)
    sorter.put(files / "one" / "x.jpg", "cat")

    def half(start: Path, target: Path) -> None:
        os.link(start, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(sorting, "move", half)
    with pytest.raises(KeyboardInterrupt):
        sorter.put(files / "y.jpg", "cat")
    monkeypatch.undo()
    sorter.close()
    with sorter.journal.open("a") as file:
        file.write(json.dumps({"from": str(files / "two" / "x.jpg"), "to": "cat/x-9.jpg"}) + '\n{"from": "cut o')
    assert undo(sorter.journal) == (2, 0)
    assert contents(files) == before


@pytest.mark.parametrize("part", [slice(0), slice(1), slice(1 << 20), slice(None), None])
def test_undo_removes_the_rest_of_an_interrupted_copy_only(
    part: slice | None, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, content = files / "large.jpg", os.urandom((1 << 20) + 9)
    start.write_bytes(content)
    sorter = Sorter(tmp_path / "to", ["cat"], False)

    def stopped(start: Path, target: Path) -> None:
        target.write_bytes(content[part] if part else b"of somebody else")
        raise KeyboardInterrupt

    monkeypatch.setattr(sorting, "move", stopped)
    with pytest.raises(KeyboardInterrupt):
        sorter.put(start, "cat")
    sorter.close()
    assert undo(sorter.journal) == ((1, 0) if part else (0, 1))
    assert start.read_bytes() == content and (tmp_path / "to" / "cat" / "large.jpg").exists() is (part is None)


def test_an_interrupted_copy_is_removed(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sorting.shutil, "copyfileobj", interrupted)
    monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "copy.jpg"
    with pytest.raises(KeyboardInterrupt):
        sorting.move(files / "y.jpg", target)
    assert not target.exists() and (files / "y.jpg").exists()


def test_a_linked_class_folder_is_refused(files: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "dog").symlink_to(files)
    with pytest.raises(UserError, match="dog is a symbolic link"):
        Sorter(tmp_path / "to", ["cat", "dog"], False)
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["dog"]


def test_a_full_disk_leaves_no_journal(tmp_path: Path) -> None:
    with limit_file_size(0), pytest.raises(UserError, match="File too large"):
        Sorter(tmp_path, ["cat"], False)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_moved_is_an_error(files: Path, tmp_path: Path) -> None:
    sorter = Sorter(tmp_path / "to", ["cat"], False)
    with pytest.raises(UserError, match="cannot be put into"):
        sorter.put(files / "none.jpg", "cat")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--move .*the folder cannot be created"):
        Sorter(tmp_path / "file" / "to", ["cat"], False)


@pytest.mark.parametrize("link", [False, True])
def test_a_failed_move_is_not_in_the_journal(
    link: bool, files: Path, tmp_path: Path, link_support: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that may not be removed, or a link that may not be made."""
    before, remove = contents(files), Path.unlink
    sorter = Sorter(tmp_path / "to", ["cat"], link)
    sorter.put(files / "y.jpg", "cat")

    def kept(path: Path, missing_ok: bool = False) -> None:
        if path.is_relative_to(files):
            raise PermissionError(13, "Permission denied")
        remove(path, missing_ok)

    def refused(start: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kept)
        patch.setattr(os, "symlink", refused)
        with pytest.raises(UserError, match="Permission denied"):
            sorter.put(files / "one" / "x.jpg", "cat")
    assert not (tmp_path / "to" / "cat" / "x.jpg").exists()
    sorter.put(files / "two" / "x.jpg", "cat")
    sorter.close()
    assert undo(sorter.journal) == (2, 0)
    assert contents(files) == before and not (tmp_path / "to").exists()


def test_the_only_journal_of_a_folder_is_found(files: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    first = sort_all(files, to, link=True)
    assert find_journal(to) == find_journal(first) == first
    nothing = Sorter(to, ["cat"], True)
    assert not nothing.close() and find_journal(to) == first
    second = sort_all(files, to)
    os.utime(first, (1, 1))
    with pytest.raises(UserError, match=f"2 journals.*with the newest: {second}, {first}"):
        find_journal(to)
    for journal in (second, first):
        undo(journal)
    for missing in (first, to):
        with pytest.raises(UserError, match="a journal is removed once all is undone"):
            find_journal(missing)


def test_a_sort_of_no_file_leaves_no_journal_and_no_folder(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorting, "move", refuse)
    sorter = Sorter(tmp_path / "to", ["cat", "sea"], False)
    for name in ("cat", "sea"):
        with pytest.raises(UserError, match="stays where it is"):
            sorter.put(files / "y.jpg", name)
    assert not sorter.close() and not (tmp_path / "to").exists()
