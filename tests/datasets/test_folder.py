"""Images and class names of a user."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coft.core.errors import UserError
from coft.engine.class_names import Classes, given_classes, read_classes, write_classes
from datasets.folder import Folder
from tests.datasets.data_roots import config, touch, write_image


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Folder of two cats, a duplicate, a dog, and two files that are not images."""
    folder = tmp_path / "photos"
    write_image(folder / "Tabby-Cat" / "2019" / "a.jpg", 0)
    write_image(folder / "tabby_cat" / "b.png", 1)
    shutil.copy(folder / "tabby_cat" / "b.png", folder / "tabby_cat" / "copy of b.png")
    write_image(folder / "dog" / "c.webp", 2)
    touch(folder / "dog" / "empty.png")
    (folder / "dog" / "text.jpg").write_text("hello")
    return folder


def load(images: Path | str, classes: str = "tabby cat, dog", **options: Any) -> Folder:
    defaults = {"IMAGES": str(images), "CLASSES": classes, "LABELS_FROM_FOLDERS": False}
    cfg = config(Path(), **defaults | options)
    return Folder(SimpleNamespace(DATASET=cfg.DATASET, OUTPUT_DIR=str(Path(images).parent / "out")))


def test_duplicates_are_predicted_but_not_trained_on(pictures: Path) -> None:
    data = load(pictures)
    assert data.classnames == ["tabby cat", "dog"] and data.num_classes == 2
    assert [Path(item.impath).name for item in data.test] == ["a.jpg", "c.webp", "b.png", "copy of b.png"]
    assert [Path(item.impath).name for item in data.train_u] == ["a.jpg", "c.webp", "b.png"]
    assert {item.label for item in data.test} == {-1}
    assert "predicted as well" in data.unlabeled_part
    assert data.content_hashes.keys() == {item.impath for item in data.test}


def test_skipped_files_are_listed_with_reasons(pictures: Path) -> None:
    load(pictures)
    path = pictures.parent / "out" / "skipped.csv"
    rows = list(csv.reader(path.open()))
    assert rows == [
        ["path", "problem"],
        [str(pictures / "dog" / "empty.png"), "the file is empty"],
        [str(pictures / "dog" / "text.jpg"), "unknown image format"],
    ]
    for name in ("empty.png", "text.jpg"):
        (pictures / "dog" / name).unlink()
    load(pictures)
    assert not path.exists()


def test_folder_names_give_labels(pictures: Path) -> None:
    data = load(pictures, LABELS_FROM_FOLDERS=True)
    assert [item.label for item in data.test] == [0, 1, 0, 0]
    assert [item.classname for item in data.test] == ["tabby cat", "dog", "tabby cat", "tabby cat"]


def test_folders_that_match_no_class(pictures: Path) -> None:
    with pytest.raises(UserError, match="folder 'dog' is no class; did you mean 'dogs'"):
        load(pictures, "tabby cat, dogs", LABELS_FROM_FOLDERS=True)
    write_image(pictures / "flat.png", 3)
    with pytest.raises(UserError, match=r"image flat\.png is in no sub-folder"):
        load(pictures, LABELS_FROM_FOLDERS=True)


def test_wrong_images_or_classes_are_named(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no image")
    for images in (tmp_path / "nowhere", pictures / "dog" / "c.webp", tmp_path / "nothing", tmp_path / "broken"):
        with pytest.raises(UserError, match=images.name):
            load(images, "a, b")
    with pytest.raises(UserError, match="--images is missing"):
        load("", "a, b")
    for classes in ("cat", "names.txt", "cat,,dog", "cat, dog, cat", "cat, Cat"):
        with pytest.raises(UserError):
            load(pictures, classes)
    with pytest.raises(UserError, match="SUBSAMPLE_CLASSES"):
        load(pictures, SUBSAMPLE_CLASSES="base")


def test_class_file_with_descriptions(tmp_path: Path, pictures: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufefftabby cat\tA tabby cat with stripes.\tA tabby cat, grey.\r\n\r\n  dog \r\n".encode())
    classes = read_classes(str(path))
    assert classes == Classes(
        ["tabby cat", "dog"], {}, {"tabby cat": ["A tabby cat with stripes.", "A tabby cat, grey."]}
    )
    data = load(pictures, str(path))
    assert data.classnames == ["tabby cat", "dog"] and list(data.descriptions) == ["tabby cat"]


EMPTY = (b"", b"\n \n", b"cat\n\tA dog.\n", b"dog\ncat |\n")
CONTROLS = (b"cat\tA cat.\vIt purrs.\ndog\n", b"cat\tA\0cat.\ndog\n", "cat\tA.\u2028B.\ndog\n".encode())
TOO_LONG = (b"c" * 30_000 + b"\ndog\n",)
TWICE = (
    b"cat\ncat\n",
    b"cat, dog, owl\n",
    b"cat | tom\nTom\n",
    b"cat | tom\ndog | CAT\n",
    b"cat | Cat\ndog\n",
)


@pytest.mark.parametrize("content", [*EMPTY, *TWICE, *CONTROLS, *TOO_LONG, b"\xff\xfe\x00c"])
def test_invalid_class_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(UserError, match="names"):
        read_classes(str(tmp_path / "names"))


def test_first_synonym_is_the_class_name(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("feline | tabby_cat|  striped cat\tA cat.\ndog\n")
    data = load(pictures, str(path), LABELS_FROM_FOLDERS=True)
    assert data.classnames == ["feline", "dog"] and data.synonyms == {"feline": ("tabby_cat", "striped cat")}
    assert data.descriptions == {"feline": ["A cat."]}
    assert [item.classname for item in data.test] == ["feline", "dog", "feline", "feline"]
    assert (
        len(read_classes(", ".join(f"class {i}" for i in range(5000))).names) == 5000
    )  # a long list is not taken for a path
    assert read_classes("feline | tabby_cat | striped cat, dog") == Classes(data.classnames, data.synonyms)
    assert given_classes({"feline|tabby_cat|striped cat": ["A cat."], "dog": []}) == data.classes


def test_written_classes_are_read_again(tmp_path: Path) -> None:
    classes = Classes(["a b", "c", "<i>"], {"c": ("d", "e f")}, {"a b": ["One.", "Two\nlines."], "c": ["Three."]})
    write_classes(tmp_path / "names", classes)
    assert read_classes(str(tmp_path / "names")) == Classes(
        classes.names, classes.synonyms, {"a b": ["One.", "Two lines."], "c": ["Three."]}
    )


@pytest.mark.parametrize("name", ["two\nlines", "a\ttab", "a | two\u2028lines", "\x1b[31mred"])
def test_class_names_are_single_lines(name: str) -> None:
    with pytest.raises(UserError, match="tab or a line break"):
        given_classes(["dog", name])


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(UserError, match="at most 30000 are read"):
        given_classes({f"class {number}": [] for number in range(30_005)})


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["C", "C++", "C#"], "C, C++, C#"),
        (["+", "-"], "+, -"),
        (["\u0915\u093f", "\u0915\u093e"], "\u0915\u093f, \u0915\u093e"),  # Hindi syllables that differ in a mark
        (["cafe\u0301", "tea_room"], "caf\u00e9, Tea Room"),  # as macOS decomposes it
    ],
)
def test_folders_have_the_labels_of_all_signs_of_their_names(tmp_path: Path, folders: list[str], classes: str) -> None:
    for number, name in enumerate(folders):
        write_image(tmp_path / "photos" / name / "a.png", number)
    data = load(tmp_path / "photos", classes, LABELS_FROM_FOLDERS=True)
    expected = {name: label for label, name in enumerate(folders)}
    assert {Path(item.impath).parent.name: item.label for item in data.test} == expected


def test_a_folder_that_fits_two_classes_has_no_label(tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "(C)" / "a.png", 0)
    with pytest.raises(UserError, match=r"folder '\(C\)' is no class"):
        load(tmp_path / "photos", "C, C++", LABELS_FROM_FOLDERS=True)
