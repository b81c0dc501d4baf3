"""Annotation files of benchmark data sets, from which splits are made."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from coft.core.errors import UserError
from tests.datasets.data_roots import MAKERS, NUM_CLASSES, load

from .formats import Format
from .mutations import DAMAGED, DAMAGED_TEXT, INVALID, Mutation, without
from .verdict import WrongResult
from .workspace import Workspace

TEXT_FILES = {
    "OxfordPets": "oxford_pets/annotations/trainval.txt",
    "SUN397": "sun397/Training_01.txt",
    "UCF101": "ucf101/ucfTrainTestlist/trainlist01.txt",
    "FGVCAircraft": "fgvc_aircraft/images_variant_train.txt",
}
MATLAB_FILES = {  # and the name of their variable
    "OxfordFlowers": ("oxford_flowers/imagelabels.mat", "labels"),
    "StanfordCars": ("stanford_cars/devkit/cars_train_annos.mat", "annotations"),
}
ODD_WORDS = (
    *("", "x", "0", "-1", "9" * 22, "9" * 5000, "1.0", "nan", "../../x", "/etc/hostname", "a/../../../x", "\0"),
    "\u0663",  # the digit 3 in Arabic
)
LABELS = np.array([[1, 2] * 306])
ODD_LABELS: dict[str, Any] = {
    **{f"times {factor}": LABELS * factor for factor in (0, -3, 300, 0.5, np.nan, np.inf, 1j)},
    **{"a text": "a", "a cell": np.array(["a", 2], object), "empty": np.zeros((1, 0)), "square": np.ones((2, 3))},
}


def copy_dataset(workspace: Workspace, dataset: str, file: str) -> Path:
    """Make a small data set with links to shared images. Returns its annotation file, which the case can damage."""
    made = workspace.shared / dataset
    if not made.is_dir():
        MAKERS[dataset](made)
    home, name = Path(file).parts[:2]
    (folder := workspace.folder / home).mkdir()
    for entry in (made / home).iterdir():
        (folder / entry.name).symlink_to(entry)
    (folder / name).unlink()
    source = made / home / name
    shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)
    return workspace.folder / file


def read_dataset(workspace: Workspace, path: Path, dataset: str) -> None:
    """Make the split of a data set: its images must be in its folder. After an error there must be no split."""
    try:
        data = load(dataset, workspace.folder)
    except UserError:
        if list(workspace.folder.rglob("split*.json")):
            raise WrongResult("an invalid split was written") from None
        raise
    for item in [*data.train_x, *data.val, *data.test]:
        is_inside = Path(os.path.normpath(item.impath)).is_relative_to(data.dataset_dir)
        if not is_inside or type(item.label) is not int or not 0 <= item.label < NUM_CLASSES[dataset]:
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
    invalid = without(INVALID, "empty")
    files: dict[str, tuple[str, dict[str, Mutation]]] = {
        dataset: (file, {**invalid, **DAMAGED_TEXT, **words}) for dataset, file in TEXT_FILES.items()
    }
    for dataset, (file, variable) in MATLAB_FILES.items():
        variables = {what: {variable: value} for what, value in ODD_LABELS.items()} | {"another variable": {"x": 1}}
        odd = {what: partial(scipy.io.savemat, mdict=each, do_compression=True) for what, each in variables.items()}
        files[dataset] = file, {**invalid, **DAMAGED, **odd}
    for dataset, (file, either) in files.items():
        make, read = partial(copy_dataset, dataset=dataset, file=file), partial(read_dataset, dataset=dataset)
        names = ("split", "image", "class", dataset)
        yield Format("splits", Path(file).name, make, read, either=either, input_names=names)
