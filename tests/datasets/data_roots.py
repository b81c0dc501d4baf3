"""Configs and small data roots, for tests of data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

import datasets  # noqa: F401 - registers all data sets
from dassl.data.datasets import DATASET_REGISTRY
from datasets.benchmark import declared_names
from datasets.coop_sets import EUROSAT

PER_CLASS = 6  # images of a class if all are split at random
TRAINED, TESTED = 3, 1  # images of a class if the test part is fixed


def config(root: Path, **dataset: Any) -> Any:
    """Make a config with the keys that data sets read."""
    defaults = {"ROOT": str(root), "NUM_SHOTS": -1, "SUBSAMPLE_CLASSES": "all", "NUM_UNLABELED": 0}
    return SimpleNamespace(DATASET=SimpleNamespace(**defaults | dataset))


def load(name: str, root: Path, **options: Any) -> Any:
    """Load a data set by its name in Dassl's registry."""
    return DATASET_REGISTRY.get(name)(config(root, **options))


def touch(path: Path) -> Path:
    """Make an empty file in place of an image, which data sets must not open."""
    try:
        path.touch()
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        path.touch()
    return path


def write_image(path: Path, seed: int, size: int = 8, **options: Any) -> Path:
    """Write a small image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def in_folders(images: Path, folders: Iterable[str], per_class: int = PER_CLASS) -> None:
    """Make empty image files in class folders."""
    for folder in folders:
        for i in range(per_class):
            touch(images / folder / f"image_{i:04d}.jpg")


def caltech101(root: Path) -> None:
    renamed = {"airplane": "airplanes", "face": "Faces", "leopard": "Leopards", "motorbike": "Motorbikes"}
    folders = [renamed.get(name, name) for name in declared_names("caltech101")]
    in_folders(root / "caltech-101" / "101_ObjectCategories", [*folders, "BACKGROUND_Google", "Faces_easy"])


def dtd(root: Path) -> None:
    in_folders(root / "dtd" / "images", declared_names("dtd"))


def food101(root: Path) -> None:
    in_folders(root / "food-101" / "images", declared_names("food101"))


def eurosat(root: Path) -> None:
    in_folders(root / "eurosat" / "2750", EUROSAT)


def oxford_pets(root: Path) -> None:
    home = root / "oxford_pets"
    lines: dict[str, list[str]] = {"trainval": [], "test": []}
    for label, name in enumerate(declared_names("oxford_pets")):
        written = name if label % 2 else name.title()
        for i in range(TRAINED + TESTED):
            touch(home / "images" / f"{written}_{i}.jpg")
            lines["trainval" if i < TRAINED else "test"].append(f"{written}_{i} {label + 1} 1 1")
    (home / "annotations").mkdir()
    for part, rows in lines.items():
        (home / "annotations" / f"{part}.txt").write_text("\n".join(rows) + "\n")


def oxford_flowers(root: Path) -> None:
    home = root / "oxford_flowers"
    labels = [label for label in range(1, 103) for _ in range(PER_CLASS)]
    for number in range(1, len(labels) + 1):
        touch(home / "jpg" / f"image_{number:05d}.jpg")
    scipy.io.savemat(home / "imagelabels.mat", {"labels": np.array([labels], np.uint8)}, do_compression=True)


def stanford_cars(root: Path, nested: bool = False) -> None:
    home = root / "stanford_cars"
    (home / "devkit").mkdir(parents=True)
    parts = (("train", "devkit/cars_train_annos.mat", TRAINED), ("test", "cars_test_annos_withlabels.mat", TESTED))
    for part, path, count in parts:
        rows = [(f"{i:05d}.jpg", i // count + 1) for i in range(196 * count)]
        folder = home / f"cars_{part}" / (f"cars_{part}" if nested else "")
        for name, _ in rows:
            touch(folder / name)
        scipy.io.savemat(home / path, {"annotations": _cars(rows)}, do_compression=True)


def _cars(rows: list[tuple[str, int]]) -> np.ndarray:
    """Return rows as a structure array of MATLAB."""
    table = np.empty((1, len(rows)), dtype=[("fname", object), ("class", np.uint8)])
    for i, row in enumerate(rows):
        table[0, i] = row
    return table


def fgvc_aircraft(root: Path) -> None:
    home = root / "fgvc_aircraft"
    names = declared_names("fgvc_aircraft")
    for start, part in enumerate(("train", "val", "test")):
        rows = [
            f"{1_000_000 * start + 1000 * label + i:07d} {name}" for label, name in enumerate(names) for i in range(3)
        ]
        for row in rows:
            touch(home / "images" / f"{row.split()[0]}.jpg")
        (home / f"images_variant_{part}.txt").write_text("\n".join(rows) + "\n")


def sun397(root: Path) -> None:
    home = root / "sun397"
    lists: dict[str, list[str]] = {"Training_01.txt": [], "Testing_01.txt": []}
    for name in declared_names("sun397"):
        path = "/".join(reversed(name.split(" ")))
        for i in range(TRAINED + TESTED):
            image = f"/{path[0]}/{path}/sun_{i}.jpg"
            touch(home / "SUN397" / image[1:])
            lists["Training_01.txt" if i < TRAINED else "Testing_01.txt"].append(image)
    for file, rows in lists.items():
        (home / file).write_text("\n".join(rows) + "\n")


def ucf101(root: Path) -> None:
    home = root / "ucf101"
    lists: dict[str, list[str]] = {"trainlist01.txt": [], "testlist01.txt": []}
    for label, name in enumerate(declared_names("ucf101")):
        action = name.replace("_", "")
        for i in range(TRAINED + TESTED):
            touch(home / "UCF-101-midframes" / name / f"v_{action}_g01_c{i:02d}.jpg")
            file = "trainlist01.txt" if i < TRAINED else "testlist01.txt"
            number = f" {label + 1}" if file.startswith("train") else ""
            lists[file].append(f"{action}/v_{action}_g01_c{i:02d}.avi{number}")
    (home / "ucfTrainTestlist").mkdir()
    for file, rows in lists.items():
        (home / "ucfTrainTestlist" / file).write_text("\n".join(rows) + "\n")


NUM_CLASSES = {
    "Caltech101": 100,
    "DescribableTextures": 47,
    "EuroSAT": 10,
    "FGVCAircraft": 100,
    "Food101": 101,
    "OxfordFlowers": 102,
    "OxfordPets": 37,
    "StanfordCars": 196,
    "SUN397": 397,
    "UCF101": 101,
}
MAKERS: dict[str, Callable[[Path], None]] = {
    "Caltech101": caltech101,
    "DescribableTextures": dtd,
    "EuroSAT": eurosat,
    "FGVCAircraft": fgvc_aircraft,
    "Food101": food101,
    "OxfordFlowers": oxford_flowers,
    "OxfordPets": oxford_pets,
    "StanfordCars": stanford_cars,
    "SUN397": sun397,
    "UCF101": ucf101,
}


def synsets(root: Path) -> dict[str, str]:
    """Write ImageNet's classnames.txt with five classes, two of which have the same name. Returns names by synset."""
    names = {f"n0{i}440764": name for i, name in enumerate(["tench", "great white shark", "missile", "owl", "missile"])}
    (root / "imagenet").mkdir(parents=True)
    (root / "imagenet" / "classnames.txt").write_text("".join(f"{s} {n}\n" for s, n in names.items()))
    return names


def write_split(path: Path, parts: dict[str, list[tuple[str, int, str]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"train": [], "val": [], "test": []} | parts))
