"""Images from files, folders, patterns and lists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coft.core.errors import UserError
from coft.inference.sources import Sources


def names_of(sources: Sources) -> list[str]:
    return [source.shown for source in sources]


def test_a_folder_gives_its_images_and_then_those_of_subfolders(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    (pictures / "more" / "circle").symlink_to(pictures)
    sources = Sources(["pictures"])
    first = [f"pictures/{n:02}.png" for n in range(8)]
    rest = ["pictures/cut.jpg", "pictures/empty.png", "pictures/gone.png"]
    assert names_of(sources) == [*first, *rest, *(f"pictures/more/{n:02}.png" for n in (8, 9, 10))]
    assert sources.count() == 14


def test_names_are_relative_to_the_given_folder(pictures: Path) -> None:
    sources = list(Sources(["03.png", "0[01].png", "**/1*.png", "notes.txt"], lambda word: pictures / word))
    assert [s.shown for s in sources] == ["03.png", "00.png", "01.png", "more/10.png", "notes.txt"]
    assert all(source.path == pictures / source.shown for source in sources)


def test_brackets_in_the_callers_folder_are_no_pattern(pictures: Path) -> None:
    folder = pictures.rename(pictures.with_name("my [2024] pictures"))
    assert names_of(Sources(["0[01].png"], lambda word: folder / word)) == ["00.png", "01.png"]


def test_a_list_is_read_lazily(pictures: Path) -> None:
    read = []

    def lines() -> Iterator[str]:
        for name in ("00.png\n", "\n", "no such.png\r\n"):
            read.append(name)
            yield name

    sources = Sources(["-"], lambda word: pictures / word, lines())
    assert sources.count() is None and not read
    assert next(iter(sources)).path == pictures / "00.png" and len(read) == 1
    assert names_of(Sources(["-"], listed=["a b.png\n", "\n", "no such.png\r\n"])) == ["a b.png", "no such.png"]


def test_a_name_without_files_is_refused(pictures: Path) -> None:
    for word in ("nothing.png", "*.gif"):
        with pytest.raises(UserError, match="there is no such file or folder"):
            Sources(["00.png", word], lambda name: pictures / name)


def test_an_excluded_folder_is_left_out(pictures: Path) -> None:
    words = [str(pictures / "more" / "08.png"), str(pictures / "00.png"), str(pictures)]
    paths = names_of(Sources(words, exclude=pictures / "more"))
    assert paths[:2] == [str(pictures / "00.png"), str(pictures / "01.png")]
    assert not any("more" in path for path in paths)


def test_an_image_that_is_named_twice_is_given_once(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    (pictures.parent / "way").symlink_to(pictures)
    once = names_of(Sources(["."]))
    for words in (
        [".", "more", "00.png", "more/*.png", "../way/01.png", "more/../more", "../way"],
        ["more", "00.png", "./00.png", "0*.png", "../way/01.png", "."],
    ):
        paths = names_of(Sources(words))
        assert len(paths) == len(once) and sorted(map(os.path.realpath, paths)) == sorted(map(os.path.realpath, once))
    assert names_of(Sources(["-", "00.png"], listed=["00.png", "a b.png", "00.png"])) == ["00.png", "a b.png"]


def test_files_that_a_folder_leaves_out_can_be_named(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    (pictures / ".hidden.png").touch()
    assert names_of(Sources([".", ".hidden.png", "notes.txt"])) == [
        *names_of(Sources(["."])),
        ".hidden.png",
        "notes.txt",
    ]
