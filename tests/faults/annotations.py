"""Annotation files that splits of data sets are made from: their lines, words and variables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY
from datasets.domain_lists import read_lists

from .formats import Format
from .mutations import DAMAGE, GARBAGE, LETTERS, PLACES, Mutation, flips, without
from .oracle import Wrong
from .scene import Scene

IMAGES = {  # of each of two classes, three that are annotated
    "OxfordPets": ("oxford_pets/annotations", "trainval.txt", "images/im{i}.jpg", "im{i} {number} 1 1"),
    "SUN397": ("sun397", "Training_01.txt", "SUN397/a/{sun}/{i}.jpg", "/a/{sun}/{i}.jpg"),
    "UCF101": ("ucf101", "trainlist01.txt", "UCF-101-midframes/{ucf}/v{i}.jpg", "{video}/v{i}.avi {number}"),
    "FGVCAircraft": ("fgvc_aircraft", "images_variant_train.txt", "images/{i}.jpg", "{i} {variant}"),
}
OTHERS = {  # sound files beside them
    "OxfordPets": ("annotations/test.txt",),
    "SUN397": ("Testing_01.txt",),
    "UCF101": ("testlist01.txt",),
    "FGVCAircraft": ("images_variant_val.txt", "images_variant_test.txt"),
}
NAMES = {
    "sun": ("abbey", "airplane_cabin"),
    "ucf": ("Apply_Eye_Makeup", "Apply_Lipstick"),
    "video": ("ApplyEyeMakeup", "ApplyLipstick"),
    "variant": ("707-320", "727-200"),
}
WORDS = (
    "",
    "x",
    "0",
    "-1",
    "9" * 22,
    "9" * 5000,
    "1.0",
    "nan",
    "../../x",
    "/etc/hostname",
    "a/../../../x",
    "\0",
    "\u0663",
)
ODD_NUMBERS: dict[str, Any] = {
    **{"of zero": 0, "below zero": -3, "too large": 300, "half": 0.5, "NaN": np.nan, "infinite": np.inf, "a text": "a"},
    **{"complex": 1j, "a cell": np.array(["a", 2], object), "nothing": np.zeros((1, 0)), "square": np.ones((2, 3))},
}


def filled(pattern: str, i: int) -> str:
    """A line or path of the i-th image."""
    return pattern.format(i=i, number=i % 2 + 1, **{name: values[i % 2] for name, values in NAMES.items()})


def in_lines(scene: Scene, kind: str) -> Path:
    """Make a data set with an annotation file in lines."""
    folder, name, image, line = IMAGES[kind]
    root = scene.place / Path(folder).parts[0]
    for i in range(6):
        scene.file(str(root / filled(image, i)), b"")
    content = "".join(f"{filled(line, i)}\n" for i in range(6))
    for other in OTHERS[kind]:
        scene.file(str(root / other), content)
    return scene.file(str(scene.place / folder / name), content)


def in_matlab(scene: Scene, kind: str) -> Path:
    """Make a data set with an annotation file of MATLAB."""
    home = scene.place / ("oxford_flowers" if kind == "OxfordFlowers" else "stanford_cars")
    if kind == "OxfordFlowers":
        for i in range(1, 13):
            scene.file(str(home / "jpg" / f"image_{i:05d}.jpg"), b"")
        return saved(home / "imagelabels.mat", {"labels": np.array([[1, 2] * 6], np.uint8)})
    cars = np.empty((1, 6), dtype=[("fname", object), ("class", np.uint8)])
    for i in range(6):
        cars[0, i] = (f"{i}.jpg", i % 2 + 1)
        for part in ("train", "test"):
            scene.file(str(home / f"cars_{part}" / f"{i}.jpg"), b"")
    saved(home / "cars_test_annos_withlabels.mat", {"annotations": cars})
    return saved(home / "cars_train_annos.mat", {"annotations": cars})


def saved(path: Path, variables: dict[str, Any]) -> Path:
    """Write a file of MATLAB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables, do_compression=True)
    return path


def make(scene: Scene, path: Path, kind: str) -> None:
    """Read a data set, whose split is made: images within it, of its classes; else there is no split."""
    data = DATASET_REGISTRY.get(kind)
    place = data.__new__(data)
    root = place.find(scene.place, [data.dataset_dir])
    try:
        parts = place.read(root, place.find(root, data.image_dirs), names := place.declare(root))
    except UserError:
        if list(root.glob("split*.json")):
            raise Wrong("a split is there that cannot be read") from None
        raise
    for item in (item for part in parts for item in part):
        check(item, root, len(names))


def check(item: Any, root: Path, classes: int) -> None:
    """An image is within a data set, of its classes."""
    inside = Path(item.impath).resolve().is_relative_to(root.resolve())
    if not inside or type(item.label) is not int or not 0 <= item.label < classes:
        raise Wrong(f"took {item.impath!r:.80} of label {item.label!r:.20}")


def of_pacs(scene: Scene) -> Path:
    """Make the lists of a domain."""
    for part in ("train", "crossval", "test"):
        rows = [f"photo/{of}/{part}.jpg {number}" for number, of in ((1, "dog"), (2, "elephant"))]
        for row in rows:
            scene.file(str(scene.place / "pacs" / row.split()[0]), b"")
        path = scene.file(str(scene.place / "pacs" / f"photo_{part}_kfold.txt"), "\n".join(rows) + "\n")
    return path


def read_pacs(scene: Scene, path: Path) -> None:
    """Read the lists of a domain."""
    for part in read_lists([path.parent], path.parent, "photo", ("dog", "elephant")) or ():
        for item in part:
            check(item, path.parent, 2)


def odd_words() -> dict[str, Mutation]:
    """Mutations that put an odd word in the place of one of the second line."""

    def replace(path: Path, place: int, word: str) -> None:
        rows = path.read_text().splitlines()
        words = re.split("([ /])", rows[1])
        words[min(2 * place, len(words) - 1)] = word
        path.write_text("\n".join([rows[0], "".join(words), *rows[2:]]) + "\n")

    return {f"{word[:20]!r} at {n}": partial(replace, place=n, word=word) for n in range(3) for word in WORDS}


def odd_variables(name: str) -> dict[str, Mutation]:
    """Mutations that put other values into a file of MATLAB."""
    values = {what: np.array([[1, 2] * 6]) * value if np.isscalar(value) and not isinstance(value, str) else value
              for what, value in ODD_NUMBERS.items()}  # fmt: skip
    return {what: partial(saved, variables={name: value}) for what, value in values.items()} | {
        "another name": partial(saved, variables={"another": 1})
    }


def annotations() -> Iterator[Format]:
    """Annotation files, by the data sets that have them."""
    damage = PLACES | without(GARBAGE, "empty") | DAMAGE | flips(20)
    for kind, (_, name, *_) in IMAGES.items():
        build, read = partial(in_lines, kind=kind), partial(make, kind=kind)
        yield Format("splits", name, build, read, either=damage | LETTERS | odd_words(), names=("split", "image", kind))
    for kind, name, variable in (
        ("OxfordFlowers", "imagelabels.mat", "labels"),
        ("StanfordCars", "cars_train_annos.mat", "annotations"),
    ):
        build, read = partial(in_matlab, kind=kind), partial(make, kind=kind)
        either = damage | odd_variables(variable)
        yield Format("splits", name, build, read, either=either, names=("image", kind, "class"))
    yield Format(
        "splits", "photo_test_kfold.txt", of_pacs, read_pacs, either=damage | LETTERS | odd_words(), names=("pacs",)
    )
