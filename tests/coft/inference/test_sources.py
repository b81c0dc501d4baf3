"""Files, folders, patterns and lists become images, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coft.core.errors import UserError
from coft.inference.sources import Sources


def shown(sources: Sources) -> list[str]:
    return [source.shown for source in sources]


def test_a_folder_gives_its_images_by_name_then_those_below(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures.parent)
    (pictures / "more" / "circle").symlink_to(pictures)
    sources = Sources(["pictures"])
    first = [f"pictures/{n:02}.png" for n in range(8)]
    rest = ["pictures/cut.jpg", "pictures/empty.png", "pictures/gone.png"]
    assert shown(sources) == [*first, *rest, *(f"pictures/more/{n:02}.png" for n in (8, 9, 10))]
    assert sources.count() == 14


def test_words_are_seen_from_where_the_user_is(pictures: Path) -> None:
    sources = list(Sources(["03.png", "0[01].png", "**/1*.png", "notes.txt"], lambda word: pictures / word))
    assert [s.shown for s in sources] == ["03.png", "00.png", "01.png", "more/10.png", "notes.txt"]
    assert all(source.path == pictures / source.shown for source in sources)


def test_a_list_is_read_line_by_line(pictures: Path) -> None:
    read = []

    def lines() -> Iterator[str]:
        for name in ("00.png\n", "\n", "no such.png\r\n"):
            read.append(name)
            yield name

    sources = Sources(["-"], lambda word: pictures / word, lines())
    assert sources.count() is None and not read
    assert next(iter(sources)).path == pictures / "00.png" and len(read) == 1
    assert shown(Sources(["-"], listed=["a b.png\n", "\n", "no such.png\r\n"])) == ["a b.png", "no such.png"]


def test_a_word_for_nothing_is_named(pictures: Path) -> None:
    for word in ("nothing.png", "*.gif"):
        with pytest.raises(UserError, match="there is no such file or folder"):
            Sources(["00.png", word], lambda name: pictures / name)


def test_what_was_sorted_already_is_left_out(pictures: Path) -> None:
    words = [str(pictures / "more" / "08.png"), str(pictures / "00.png"), str(pictures)]
    paths = shown(Sources(words, exclude=pictures / "more"))
    assert paths[:2] == [str(pictures / "00.png"), str(pictures / "01.png")]
    assert not any("more" in path for path in paths)


def test_what_is_named_twice_comes_once(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    (pictures.parent / "way").symlink_to(pictures)
    once = shown(Sources(["."]))
    for words in (
        [".", "more", "00.png", "more/*.png", "../way/01.png", "more/../more", "../way"],
        ["more", "00.png", "./00.png", "0*.png", "../way/01.png", "."],
    ):
        paths = shown(Sources(words))
        assert len(paths) == len(once) and sorted(map(os.path.realpath, paths)) == sorted(map(os.path.realpath, once))
    assert shown(Sources(["-", "00.png"], listed=["00.png", "a b.png", "00.png"])) == ["00.png", "a b.png"]


def test_what_a_folder_does_not_give_comes_beside_it(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    (pictures / ".hidden.png").touch()
    assert shown(Sources([".", ".hidden.png", "notes.txt"])) == [*shown(Sources(["."])), ".hidden.png", "notes.txt"]
