"""Synthetic versions of CoOp's eleven data sets: real layouts and split files, a few tiny images of three classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from datasets.benchmark import SplitDataset
from scripts.comparing.benchmark import Facts
from tests.datasets.data_roots import write_image

SHARES = {"train": 4, "val": 1, "test": 2}  # images of a class
SYNSETS = {"n01440764": "tench", "n01443537": "goldfish", "n01484850": "great white shark"}
CLASSES = len(SYNSETS)
SIZES = {part: CLASSES * count for part, count in SHARES.items()}
SETS = (
    *("imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft"),
    *("sun397", "dtd", "eurosat", "ucf101"),
)


def facts(name: str) -> Facts:
    """Return the sizes of a synthetic set."""
    sizes = SIZES | ({"val": 0} if name == "imagenet" else {})
    return Facts(name.title(), CLASSES, *sizes.values())


def images(part: str) -> Iterator[tuple[int, int]]:
    """Yield the label and a unique number of each image of a part."""
    for label in range(CLASSES):
        for number in range(SHARES[part]):
            yield label, 1000 * [*SHARES].index(part) + 10 * label + number


def write_set(root: Path, name: str, size: int = 24) -> None:
    """Write a set into a data root."""
    seed = 10_000 * SETS.index(name)
    if name == "imagenet":
        _imagenet(root / "imagenet", seed, size)
        return
    kind = {kind.name: kind for kind in SplitDataset.__subclasses__()}[name]
    home = root / kind.dataset_dir
    folder, names = home / kind.image_dirs[0], kind.declare(home)
    split: dict[str, list[list[object]]] = {}
    for part in SHARES:
        split[part] = []
        for label, number in images(part):
            path = f"{_class_folder(name, part, label)}{number:07d}.jpg"
            write_image(folder / path, seed + number, size)
            split[part].append([path, label, names[label]])
    if name == "fgvc_aircraft":
        for part, rows in split.items():
            lines = "".join(f"{str(path).removesuffix('.jpg')} {variant}\n" for path, _, variant in rows)
            (home / f"images_variant_{part}.txt").write_text(lines)
    else:
        (home / kind.split).write_text(json.dumps(split, indent=4))
    for extra in {"oxford_pets": ["annotations/list.txt"], "oxford_flowers": ["imagelabels.mat"]}.get(name, []):
        (home / extra).parent.mkdir(exist_ok=True)
        (home / extra).touch()


def _class_folder(name: str, part: str, label: int) -> str:
    """Return the folder of a class; cars and aircraft have no class folders."""
    of_cars = "cars_test/" if part == "test" else "cars_train/"
    return {"stanford_cars": of_cars, "fgvc_aircraft": ""}.get(name, f"class_{label}/")


def _imagenet(home: Path, seed: int, size: int) -> None:
    for part, folder in (("train", "train"), ("test", "val")):
        for label, number in images(part):
            write_image(home / "images" / folder / [*SYNSETS][label] / f"{number}.JPEG", seed + number, size)
    (home / "classnames.txt").write_text("".join(f"{synset} {name}\n" for synset, name in SYNSETS.items()))
