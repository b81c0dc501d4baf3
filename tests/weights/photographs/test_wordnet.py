"""Nouns of WordNet and their meanings, from a small archive."""

import io
import tarfile
from pathlib import Path

import pytest

from weights.photographs.lexicon import can_be_seen, meanings_of, read_counts
from weights.photographs.wordnet import ancestors, leaves_below, read_nouns

LICENCE = "  1 This software and database is being provided to you\n"
ENTITY = "00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is perceived  \n"
PHYSICAL = '00001930 03 n 01 physical_entity 0 001 @ 00001740 n 0000 | an entity; "it was one"  \n'
BIRD = "00000010 05 n 02 bird 0 feathered_friend 0 002 @ 00001930 n 0000 + 00000099 v 0101 | it flies; it sings  \n"
CRANE = "00000020 05 n 01 crane 0 001 @ 00000010 n 0000 | a long-necked bird  \n"
POET = "00000030 18 n 02 Crane 0 Hart_Crane 0 001 @i 00001930 n 0000 | a poet  \n"
IDEA = "00000040 09 n 01 crane 1 001 @ 00001740 n 0000 | a made-up idea  \n"
SENSES = "crane%1:05:00:: 00000020 1 3\ncrane%1:18:00:: 00000030 2 0\ncrane%2:30:00:: 00000050 1 9\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as database:
        lines = LICENCE + ENTITY + PHYSICAL + BIRD + CRANE + POET + IDEA
        for name, text in (("dict/data.noun", lines), ("dict/index.sense", SENSES)):
            _add(database, name, text.encode())
    path = tmp_path / "WNdb.tgz"
    with tarfile.open(path, mode="w:gz") as package:
        _add(package, "package/WNdb-3.0.tar.gz", inner.getvalue())
    return path


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def test_names_glosses_and_hypernyms(archive: Path) -> None:
    nouns = read_nouns(archive)
    assert list(nouns) == [1740, 1930, 10, 20, 30, 40]
    assert nouns[10].names == ("bird", "feathered friend")
    assert nouns[10].gloss == "it flies"
    assert nouns[1930].gloss == "an entity"
    assert nouns[10].parents == (1930,)  # the other pointer is no hypernym
    assert nouns[30].instance and not nouns[20].instance


def test_ancestors_are_unique_and_nearest_first(archive: Path) -> None:
    assert list(ancestors(20, read_nouns(archive))) == [20, 10, 1930, 1740]


def test_classes_below_each_synset(archive: Path) -> None:
    assert leaves_below([20, 30], read_nouns(archive)) == {20: [0], 10: [0], 30: [1], 1930: [0, 1], 1740: [0, 1]}


def test_weights_of_meanings(archive: Path) -> None:
    nouns, counts = read_nouns(archive), read_counts(archive)
    assert counts == {("crane", 20): 3, ("crane", 30): 0}
    visible = [offset for offset, synset in nouns.items() if can_be_seen(synset, nouns)]
    assert visible == [1930, 10, 20]
    weights = {20: 4.0, 30: 0.25, 40: 0.25}
    shares = dict(meanings_of(nouns, counts, visible)["crane"])
    assert shares == pytest.approx({offset: weight / 4.5 for offset, weight in weights.items()})
