"""Data sets of CoOp's benchmark, in small data roots with and without a split file."""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import datasets
from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY
from datasets import benchmark
from datasets.base import read_split
from datasets.benchmark import CLASSNAMES, declared_names
from datasets.folders import letters_of
from datasets.splits import hold_out, split_by_class
from datasets.templates import TEMPLATES
from tests.datasets.data_roots import (
    MAKERS,
    NUM_CLASSES,
    PER_CLASS,
    TESTED,
    in_folders,
    load,
    stanford_cars,
    touch,
    write_split,
)

CONFIGS = Path(datasets.__file__).parents[1] / "configs" / "datasets"
COOP_TEMPLATES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "StanfordCars": "a photo of a {}.",
    "Food101": "a photo of {}, a type of food.",
    "SUN397": "a photo of a {}.",
    "Caltech101": "a photo of a {}.",
    "UCF101": "a photo of a person doing {}.",
    **dict.fromkeys(("ImageNet", "ImageNetSketch", "ImageNetV2", "ImageNetA", "ImageNetR"), "a photo of a {}."),
}
HELD_OUT = ("OxfordPets", "StanfordCars", "SUN397", "UCF101")
# of each class: train, val, test
SHARES = {"FGVCAircraft": (3, 3, 3)} | dict.fromkeys(HELD_OUT, (2, 1, 1))


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data root of each data set, without its split file."""
    folders = {}
    for name, make in MAKERS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        make(folders[name])
    return folders


def rows(items: Sequence[Any]) -> list[tuple[str, int, str]]:
    return [(item.impath, item.label, item.classname) for item in items]


@pytest.mark.parametrize("name", MAKERS)
def test_split_is_made_once_with_shares_of_coop(roots: dict[str, Path], name: str) -> None:
    data = load(name, roots[name])
    assert data.num_classes == NUM_CLASSES[name] and data.unlabeled_part == "training images"
    train, val, test = (len(part) / NUM_CLASSES[name] for part in (data.train_x, data.val, data.test))
    assert (train, val, test) == SHARES.get(name, (3, 1, 2))
    parts = [{item.impath for item in part} for part in (data.train_x, data.val, data.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    again = load(name, roots[name])
    assert rows(data.train_x) == rows(again.train_x) and rows(data.test) == rows(again.test)
    for item in [*data.train_x, *data.val, *data.test]:
        assert item.classname == data.classnames[item.label]
    assert data.train_u == data.train_x
    if name != "FGVCAircraft":  # whose annotations are its split
        split = json.loads((Path(data.dataset_dir) / f"split_zhou_{name}.json").read_text())
        relative, label, classname = split["train"][0]
        assert data.train_x[0].impath.endswith(relative) and not relative.startswith("/")
        assert (label, classname) == (data.train_x[0].label, data.train_x[0].classname)


def test_labels_match_folders_and_annotations(roots: dict[str, Path]) -> None:
    class_names = {
        "Caltech101": lambda p: {"Faces": "face", "airplanes": "airplane"}.get(p.parent.name, p.parent.name.lower()),
        "OxfordPets": lambda p: p.stem.rsplit("_", 1)[0].lower(),
        "SUN397": lambda p: " ".join(reversed(p.parent.parts[p.parts.index("SUN397") + 2 :])),
        "UCF101": lambda p: p.parent.name,
        "Food101": lambda p: p.parent.name,
    }
    for name, read in class_names.items():
        for item in load(name, roots[name]).test:
            expected = read(Path(item.impath))
            assert item.classname in (expected, expected.rstrip("s")), item.impath
    car = load("StanfordCars", roots["StanfordCars"]).test[0]
    assert car.label == int(Path(car.impath).stem) // TESTED
    flower = load("OxfordFlowers", roots["OxfordFlowers"]).test[0]
    assert flower.label == (int(Path(flower.impath).stem[6:]) - 1) // PER_CLASS


@pytest.mark.parametrize("which", ["base", "new"])
def test_base_and_new_classes(roots: dict[str, Path], which: str) -> None:
    name = "OxfordPets"  # of 37 classes
    whole, half = load(name, roots[name]), load(name, roots[name], SUBSAMPLE_CLASSES=which)
    middle = -(-len(whole.classnames) // 2)
    names = whole.classnames[:middle] if which == "base" else whole.classnames[middle:]
    assert half.classnames == names
    assert {item.label for item in half.test} == set(range(len(names)))
    assert all(item.classname == names[item.label] for item in half.train_u)


@pytest.mark.parametrize("which", ["all", "base", "new"])
def test_few_shots_are_those_of_coop(roots: dict[str, Path], which: str) -> None:
    """Shots are drawn from the global generator for all classes, also if only base or new classes are used."""
    home = Path(load("DescribableTextures", roots["DescribableTextures"]).dataset_dir)
    split = json.loads((home / "split_zhou_DescribableTextures.json").read_text())
    random.seed(3)
    expected: dict[str, list[str]] = {}
    for part, shots in (("train", 2), ("val", 1)):
        groups: dict[int, list[str]] = {}
        for path, label, _ in split[part]:
            groups.setdefault(label, []).append(path)
        shots_of = {label: random.sample(paths, shots) for label, paths in groups.items()}
        labels = {"all": range(47), "base": range(24), "new": range(24, 47)}[which]
        expected[part] = [path for label in labels for path in shots_of[label]]
    random.seed(3)
    data = load("DescribableTextures", roots["DescribableTextures"], NUM_SHOTS=2, SUBSAMPLE_CLASSES=which)
    for part, items in (("train", data.train_x), ("val", data.val)):
        assert ["/".join(Path(item.impath).parts[-2:]) for item in items] == expected[part]


@pytest.mark.parametrize(
    ("which", "size", "title"),
    [("train", 3, "training images"), ("train+val", 4, "training and validation images"), ("test", 2, "transductive")],
)
def test_unlabeled_parts(roots: dict[str, Path], which: str, size: int, title: str) -> None:
    data = load("EuroSAT", roots["EuroSAT"], UNLABELED=which)
    assert len(data.train_u) == 10 * size and title in data.unlabeled_part
    assert len(data.train_x) == 30 and len(data.test) == 20
    part = load("EuroSAT", roots["EuroSAT"], UNLABELED=which, NUM_UNLABELED=7)
    assert len(part.train_u) == 7


def test_existing_split_file_is_not_changed(tmp_path: Path) -> None:
    home = tmp_path / "dtd"
    parts = {
        part: [(f"{name}/{part}.jpg", y, name) for y, name in enumerate(declared_names("dtd"))]
        for part in ("train", "val", "test")
    }
    for part_rows in parts.values():
        for path, _, _ in part_rows:
            touch(home / "images" / path)
    write_split(home / "split_zhou_DescribableTextures.json", parts)
    before = (home / "split_zhou_DescribableTextures.json").stat().st_mtime_ns
    data = load("DescribableTextures", tmp_path)
    assert [item.label for item in data.test] == list(range(47)) and data.train_x[5].impath.endswith("/train.jpg")
    assert (home / "split_zhou_DescribableTextures.json").stat().st_mtime_ns == before


def test_labels_of_split_follow_declared_order(tmp_path: Path) -> None:
    names = ["cheese_plate", "cheesecake", "waffles"]
    touch(tmp_path / "a.jpg")
    write_split(
        tmp_path / "split.json",
        {"train": [("a.jpg", 0, "cheesecake"), ("a.jpg", 1, "Cheese plate")], "test": [("a.jpg", 0, "cheesecake")]},
    )
    train, _, _ = read_split(tmp_path / "split.json", tmp_path, names)
    assert [item.label for item in train] == [1, 0]


def test_split_with_undeclared_class_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path / "a.jpg")
    dog = [("a.jpg", 0, "dog")]
    write_split(tmp_path / "split.json", {"train": [("a.jpg", 1, "chat"), ("a.jpg", 0, "dog")], "test": dog})
    with caplog.at_level(logging.WARNING):
        train, _, _ = read_split(tmp_path / "split.json", tmp_path, ["cat", "dog"])
    assert [item.label for item in train] == [1, 0] and "names classes that are not declared (chat)" in caplog.text
    write_split(tmp_path / "split.json", {"train": [("a.jpg", 2, "chat")], "test": dog})
    with pytest.raises(UserError, match="label 2, but there are 2 classes"):
        read_split(tmp_path / "split.json", tmp_path, ["cat", "dog"])


def test_nested_folders_of_cars(tmp_path: Path) -> None:
    stanford_cars(tmp_path, nested=True)
    data = load("StanfordCars", tmp_path)
    split = json.loads((tmp_path / "stanford_cars" / "split_zhou_StanfordCars.json").read_text())
    assert split["train"][0][0].startswith("cars_train/0")
    assert "/cars_train/cars_train/" in data.train_x[0].impath and len(load("StanfordCars", tmp_path).test) == 196


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("OxfordPets", "oxford_pets", "oxford-iiit-pet"),
        ("OxfordFlowers", "oxford_flowers", "flowers-102"),
        ("FGVCAircraft", "fgvc_aircraft", "fgvc-aircraft-2013b/data"),
        ("SUN397", "sun397/SUN397", "SUN397"),
        ("DescribableTextures", "dtd", "dtd/dtd"),
        ("Caltech101", "caltech-101", "caltech101"),
    ],
)
def test_layouts_of_torchvision(roots: dict[str, Path], tmp_path: Path, name: str, old: str, new: str) -> None:
    (tmp_path / new).parent.mkdir(exist_ok=True)
    (tmp_path / new).symlink_to(roots[name] / old)
    for extra in ("Training_01.txt", "Testing_01.txt") if name == "SUN397" else ():
        shutil.copy(roots[name] / "sun397" / extra, tmp_path / new)
    assert len(load(name, tmp_path).test) == len(load(name, roots[name]).test)


def test_read_only_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MAKERS["EuroSAT"](tmp_path)
    save = benchmark.save_split

    def refuse(split: Any, path: Path) -> None:
        if path.parent == tmp_path / "eurosat":
            raise PermissionError("read-only")
        save(split, path)

    monkeypatch.setattr(benchmark, "save_split", refuse)
    first, again = load("EuroSAT", tmp_path), load("EuroSAT", tmp_path)
    assert rows(first.test) == rows(again.test)
    assert not list((tmp_path / "eurosat").glob("*.json"))


@pytest.mark.parametrize(
    ("name", "folder", "label_of_folder"),
    [
        ("StanfordCars", "stanford_cars", {"AM General Hummer SUV 2000": 0, "Ram C-V Cargo Van Minivan 2012": 173}),
        ("SUN397", "sun397", {"abbey": 0, "apartment_building_outdoor": 8, "indoor apse": 9}),
    ],
)
def test_layout_with_class_folders(tmp_path: Path, name: str, folder: str, label_of_folder: dict[str, int]) -> None:
    for part in ("train", "test"):
        in_folders(tmp_path / folder / part, label_of_folder, 5)
        touch(tmp_path / folder / part / ".thumbnails" / "a.jpg")
    data = load(name, tmp_path)
    assert [item.label for item in data.test[::5]] == [label_of_folder[p] for p in sorted(label_of_folder)]
    count = len(label_of_folder)
    assert (len(data.train_u), len(data.val), len(data.test)) == (4 * count, count, 5 * count)
    assert all(item.classname == data.classnames[item.label] for item in data.train_x)
    touch(tmp_path / folder / "test" / "spaceship" / "a.jpg")
    with pytest.raises(UserError, match="spaceship is named after no class"):
        load(name, tmp_path)


def test_splits_do_not_depend_on_order_and_do_not_use_global_generator() -> None:
    images = [(f"{label}/{i}.jpg", label, str(label)) for label in range(3) for i in range(10)]
    state = random.getstate()
    for make in (split_by_class, lambda rows: hold_out(rows, [])):
        assert make(images) == make(images[::-1])
    assert random.getstate() == state


def test_class_too_small_to_split_is_named() -> None:
    with pytest.raises(UserError, match=r"class 0 \(cat\) has 1 images, too few"):
        split_by_class([("a.jpg", 0, "cat")])
    with pytest.raises(UserError, match=r"class 0 \(cat\) has 2 training images, too few"):
        hold_out([("a.jpg", 0, "cat"), ("b.jpg", 0, "cat")], [])


@pytest.mark.parametrize("name", MAKERS)
def test_missing_data_set_or_image_is_named(roots: dict[str, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path))) as error:
        load(name, tmp_path)
    assert "bash scripts/data.sh " in error.value.line and "\n" not in str(error.value)
    item = load(name, roots[name]).test[0]
    Path(item.impath).rename(f"{item.impath}.moved")
    try:
        with pytest.raises(UserError, match=f"image {re.escape(item.impath)} is missing"):
            load(name, roots[name])
    finally:
        Path(f"{item.impath}.moved").rename(item.impath)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("OxfordPets", "oxford_pets/annotations/trainval.txt"),
        ("OxfordFlowers", "oxford_flowers/imagelabels.mat"),
        ("StanfordCars", "stanford_cars/devkit/cars_train_annos.mat"),
        ("SUN397", "sun397/Training_01.txt"),
        ("UCF101", "ucf101/ucfTrainTestlist/trainlist01.txt"),
        ("FGVCAircraft", "fgvc_aircraft/images_variant_val.txt"),
    ],
)
def test_missing_or_broken_annotations_are_named(tmp_path: Path, name: str, file: str) -> None:
    MAKERS[name](tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match=Path(file).name):
        load(name, tmp_path)
    (tmp_path / file).write_bytes(b"\xff\xfe broken" if file.endswith(".mat") else b"/x/nothing/a.jpg b\n\xff")
    with pytest.raises(UserError, match="fetch it again"):
        load(name, tmp_path)


@pytest.mark.parametrize(
    "line", ["a_0 38 1 1", "a_0 0 1 1", "a_0 one 1 1", "a_0", "../../a_0 1 1 1", "/a_0 1 1 1", f"a_0 {'9' * 5000} 1 1"]
)
def test_invalid_annotation_is_named_and_makes_no_split(tmp_path: Path, line: str) -> None:
    MAKERS["OxfordPets"](tmp_path)
    annotations = tmp_path / "oxford_pets" / "annotations" / "trainval.txt"
    valid = annotations.read_text()
    annotations.write_text(f"{valid}{line}\n")
    with pytest.raises(UserError, match=r"trainval\.txt"):
        load("OxfordPets", tmp_path)
    annotations.write_text(f"{valid}missing 1 1 1\n")
    with pytest.raises(UserError, match=r"missing\.jpg"):
        load("OxfordPets", tmp_path)
    annotations.write_text(valid)
    assert load("OxfordPets", tmp_path).num_classes == 37, "a split was stored before"


def test_lists_of_class_names_are_complete_and_unique() -> None:
    for path in CLASSNAMES.glob("*.txt"):
        names = path.read_text(encoding="utf-8").splitlines()
        kinds = {DATASET_REGISTRY.get(name).name: size for name, size in NUM_CLASSES.items()}
        assert len(names) == kinds[path.stem] and len({letters_of(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", COOP_TEMPLATES)
def test_names_and_first_templates_are_those_of_coop(name: str) -> None:
    assert TEMPLATES[name][0] == COOP_TEMPLATES[name]
    assert len(TEMPLATES[name]) >= 2 and all(template.count("{}") == 1 for template in TEMPLATES[name])
    content = yaml.safe_load((CONFIGS / f"{DATASET_REGISTRY.get(name).name}.yaml").read_text())
    assert content["DATASET"]["NAME"] == name
