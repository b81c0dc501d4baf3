"""Annotation files of benchmark data sets, from which splits are made."""

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

from .formats import Format
from .mutations import DAMAGED, DAMAGED_TEXT, INVALID, Mutation, without
from .verdict import WrongResult
from .workspace import Workspace

# Folder, annotation files (the first is mutated), path of an image, line of an image
TEXT_FILES: dict[str, tuple[str, tuple[str, ...], str, str]] = {
    "OxfordPets": (
        "oxford_pets",
        ("annotations/trainval.txt", "annotations/test.txt"),
        "images/im{i}.jpg",
        "im{i} {label} 1 1",
    ),
    "SUN397": ("sun397", ("Training_01.txt", "Testing_01.txt"), "SUN397/a/{sun}/{i}.jpg", "/a/{sun}/{i}.jpg"),
    "UCF101": (
        "ucf101",
        ("trainlist01.txt", "testlist01.txt"),
        "UCF-101-midframes/{ucf}/v{i}.jpg",
        "{video}/v{i}.avi {label}",
    ),
    "FGVCAircraft": (
        "fgvc_aircraft",
        tuple(f"images_variant_{part}.txt" for part in ("train", "val", "test")),
        "images/{i}.jpg",
        "{i} {variant}",
    ),
}
CLASS_NAMES = {
    "sun": ("abbey", "airplane_cabin"),
    "ucf": ("Apply_Eye_Makeup", "Apply_Lipstick"),
    "video": ("ApplyEyeMakeup", "ApplyLipstick"),
    "variant": ("707-320", "727-200"),
}
ODD_WORDS = (
    *("", "x", "0", "-1", "9" * 22, "9" * 5000, "1.0", "nan", "../../x", "/etc/hostname", "a/../../../x", "\0"),
    "\u0663",  # the digit 3 in Arabic
)
LABELS = np.array([[1, 2] * 6])
ODD_LABELS: dict[str, Any] = {
    **{f"times {factor}": LABELS * factor for factor in (0, -3, 300, 0.5, np.nan, np.inf, 1j)},
    **{"a text": "a", "a cell": np.array(["a", 2], object), "empty": np.zeros((1, 0)), "square": np.ones((2, 3))},
}


def fill(pattern: str, i: int) -> str:
    """Fill in the path or line of image `i`; classes alternate."""
    return pattern.format(i=i, label=i % 2 + 1, **{kind: names[i % 2] for kind, names in CLASS_NAMES.items()})


def make_text_files(workspace: Workspace, dataset: str) -> Path:
    """Make a data set of six images with annotation files in text. Returns the first one."""
    folder, files, image, line = TEXT_FILES[dataset]
    for i in range(6):
        workspace.write(f"{folder}/{fill(image, i)}")
    lines = "".join(f"{fill(line, i)}\n" for i in range(6))
    for file in files:
        workspace.write(f"{folder}/{file}", lines)
    return workspace.folder / folder / files[0]


def make_flowers(workspace: Workspace) -> Path:
    """Make OxfordFlowers with twelve images."""
    for i in range(1, 13):
        workspace.write(f"oxford_flowers/jpg/image_{i:05d}.jpg")
    return save_matlab(workspace.folder / "oxford_flowers" / "imagelabels.mat", {"labels": LABELS.astype(np.uint8)})


def make_cars(workspace: Workspace) -> Path:
    """Make StanfordCars with six images in each part."""
    table = np.empty((1, 6), dtype=[("fname", object), ("class", np.uint8)])
    for i in range(6):
        table[0, i] = (f"{i}.jpg", i % 2 + 1)
        for part in ("train", "test"):
            workspace.write(f"stanford_cars/cars_{part}/{i}.jpg")
    folder = workspace.folder / "stanford_cars"
    save_matlab(folder / "cars_test_annos_withlabels.mat", {"annotations": table})
    return save_matlab(folder / "cars_train_annos.mat", {"annotations": table})


def save_matlab(path: Path, variables: dict[str, Any]) -> Path:
    scipy.io.savemat(path, variables, do_compression=True)
    return path


def read_dataset(workspace: Workspace, path: Path, dataset: str) -> None:
    """Read a data set and make its split. After an error there must be no split."""
    data = DATASET_REGISTRY.get(dataset)
    reader = data.__new__(data)
    root = reader.find(workspace.folder, [data.dataset_dir])
    try:
        parts = reader.read(root, reader.find(root, data.image_dirs), names := reader.declare(root))
    except UserError:
        if list(root.glob("split*.json")):
            raise WrongResult("an invalid split was written") from None
        raise
    check_items(parts, root, len(names))


def check_items(parts: Any, root: Path, num_classes: int) -> None:
    """Check that all images of a data set are in its folder, and have labels of its classes."""
    for item in (item for part in parts for item in part):
        is_inside = Path(item.impath).resolve().is_relative_to(root.resolve())
        if not is_inside or type(item.label) is not int or not 0 <= item.label < num_classes:
            raise WrongResult(f"accepted {item.impath!r:.80} with label {item.label!r:.20}")


def replace_word(path: Path, position: int, word: str) -> None:
    """Replace a word of the second line of an annotation file."""
    rows = path.read_text().splitlines()
    words = re.split("([ /])", rows[1])
    words[min(2 * position, len(words) - 1)] = word
    path.write_text("\n".join([rows[0], "".join(words), *rows[2:]]) + "\n")


def annotation_files() -> Iterator[Format]:
    """Annotation files in text and in MATLAB's format."""
    words: dict[str, Mutation] = {
        f"{word[:20]!r} at {position}": partial(replace_word, position=position, word=word)
        for position in range(3)
        for word in ODD_WORDS
    }
    in_text = {**without(INVALID, "empty"), **DAMAGED_TEXT, **words}
    for dataset, (_, files, *_) in TEXT_FILES.items():
        make, read = partial(make_text_files, dataset=dataset), partial(read_dataset, dataset=dataset)
        yield Format("splits", Path(files[0]).name, make, read, either=in_text, input_names=("split", "image", dataset))
    matlab = (
        ("OxfordFlowers", make_flowers, "imagelabels.mat", "labels"),
        ("StanfordCars", make_cars, "cars_train_annos.mat", "annotations"),
    )
    for dataset, build, name, variable in matlab:
        odd: dict[str, Mutation] = {
            what: partial(save_matlab, variables={variable: value}) for what, value in ODD_LABELS.items()
        }
        odd["another variable"] = partial(save_matlab, variables={"another": 1})
        read, names = partial(read_dataset, dataset=dataset), ("image", dataset, "class")
        yield Format(
            "splits", name, build, read, either={**without(INVALID, "empty"), **DAMAGED, **odd}, input_names=names
        )
