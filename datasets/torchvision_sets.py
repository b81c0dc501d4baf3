"""Adapter for data sets of torchvision. To add one, add a line to SETS.

The images that torchvision reads are written as image files once. Class folders of images are accepted, too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision import datasets as tv
from tqdm import tqdm

from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import DeclaredDataset, Items, Row, dataset_root, read_split
from .digits import CLASSNAMES as DIGITS
from .folders import read_folders

Parts = Mapping[str, Mapping[str, Any]]
Picture = tuple[Image.Image, int]
BY_FLAG: Parts = {"train": {"train": True}, "test": {"train": False}}
BY_NAME: Parts = {"train": {"split": "train"}, "test": {"split": "test"}}

CIFAR10 = "airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck"
STL10 = "airplane, bird, car, cat, deer, dog, horse, monkey, ship, truck"
FASHION = "T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot"
CIFAR100 = """apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, bridge, bus,
butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock, cloud, cockroach, couch, crab, crocodile,
cup, dinosaur, dolphin, elephant, flatfish, forest, fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn mower,
leopard, lion, lizard, lobster, man, maple tree, motorcycle, mountain, mouse, mushroom, oak tree, orange, orchid, otter,
palm tree, pear, pickup truck, pine tree, plain, plate, poppy, porcupine, possum, rabbit, raccoon, ray, road, rocket,
rose, sea, seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel, streetcar, sunflower, sweet pepper,
table, tank, telephone, television, tiger, tractor, train, trout, tulip, turtle, wardrobe, whale, willow tree, wolf,
woman, worm"""


@dataclass(frozen=True)
class Source:
    """A data set of torchvision.

    Attributes:
        folder: Folder below the data root, and name in scripts.
        classnames: Class names by label.
        parts: Arguments of torchvision's class for the training and the test part.
    """

    folder: str
    classnames: tuple[str, ...]
    parts: Parts


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.replace("\n", " ").split(", "))


SETS = {  # by the name of torchvision's class, which is also the name in Dassl's registry
    "CIFAR10": Source("cifar10", _names(CIFAR10), BY_FLAG),
    "CIFAR100": Source("cifar100", _names(CIFAR100), BY_FLAG),
    "FashionMNIST": Source("fashion_mnist", _names(FASHION), BY_FLAG),
    "MNIST": Source("mnist", DIGITS, BY_FLAG),
    "STL10": Source("stl10", _names(STL10), BY_NAME),
    "SVHN": Source("svhn", DIGITS, BY_NAME),
}


class TorchvisionSet(DeclaredDataset):
    """A data set of SETS.

    Layout below `<root>/<folder>`: the files that torchvision downloads; or `images/` and a split file, which are made
    from them on first use; or `train/<class>/` and `test/<class>/`.
    """

    def __init__(self, cfg: Any) -> None:
        name = type(self).__name__
        source, data = SETS[name], dataset_root(cfg)
        self.dataset_dir = str(data / source.folder)
        train, test = read_set(name, data)
        super().__init__(cfg, classnames=source.classnames, train=train, test=test)


for _name, _source in SETS.items():
    # With force, because upstream Dassl has data sets of the same names for semi-supervised learning.
    DATASET_REGISTRY.register(type(_name, (TorchvisionSet,), {"dataset_dir": _source.folder}), force=True)


def split_file(name: str, data: Path) -> Path:
    """Return the path of a set's split file, which exists once the images are written."""
    return data / SETS[name].folder / f"split_{SETS[name].folder}.json"


def read_set(name: str, data: Path) -> tuple[Items, Items]:
    """Read the training and test part of a set. Missing images are written first.

    Args:
        name: Key of `SETS`.
        data: Data root.

    Raises:
        UserError: If the set is not below the data root.
    """
    source, split = SETS[name], split_file(name, data)
    root = split.parent
    if not split.is_file() and all((root / part).is_dir() for part in source.parts):
        return read_folders(root / "train", source.classnames), read_folders(root / "test", source.classnames)
    if not split.is_file():
        write_set(name, data)
    train, _, test = read_split(split, root / "images")
    return train, test


def write_set(name: str, data: Path) -> None:
    """Write the images of a set from the files of torchvision.

    Args:
        name: Key of `SETS`.
        data: Data root.

    Raises:
        UserError: If there are no such files below the data root.
    """
    source = SETS[name]
    for folder in (data / source.folder, data):
        if pictures := _open(name, folder):
            write_images(data / source.folder, split_file(name, data).name, source.classnames, pictures)
            return
    raise UserError(
        f"{source.folder}: nothing at {data / source.folder}; run: bash scripts/data.sh {source.folder}, "
        f"or set DATA to the folder that has it"
    )


def _open(name: str, folder: Path) -> dict[str, Any]:
    """Open both parts with torchvision, which compares checksums. Returns an empty dict if the files are not found."""
    torchvision_class: Callable[..., Any] = getattr(tv, name)
    try:
        return {part: torchvision_class(str(folder), **options) for part, options in SETS[name].parts.items()}
    except RuntimeError:  # not found or corrupted
        return {}
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{name}: the files at {folder} are damaged ({error}); fetch them again") from error


def write_images(root: Path, split: str, classnames: Sequence[str], parts: Mapping[str, Iterable[Picture]]) -> None:
    """Write images as `<root>/images/<part>/*.png`, and last the split file, which thus means a complete data set.

    Args:
        root: Folder of the data set. Other files in it are kept.
        split: Name of the split file.
        classnames: Class names by label.
        parts: Images and labels of "train" and "test".

    Raises:
        UserError: If the folder cannot be written, or already holds images.
    """
    draft = root / f".images.{os.getpid()}.tmp"
    try:
        rows = {part: _write_part(draft, part, classnames, pictures) for part, pictures in parts.items()}
        split_draft = draft / split
        split_draft.write_text(json.dumps({"train": [], "val": [], "test": []} | rows), encoding="utf-8")
        (draft / "images").rename(root / "images")  # fails if the folder is not empty
        split_draft.replace(root / split)
    except OSError as error:
        if not (root / split).is_file():  # otherwise another process was faster
            raise UserError(
                f"cannot write {root / 'images'} ({error}); remove what is there, or set DATA to another folder"
            ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_part(draft: Path, part: str, classnames: Sequence[str], pictures: Iterable[Picture]) -> list[Row]:
    """Write images with numbers as names, so that no file name contains a class."""
    (draft / "images" / part).mkdir(parents=True)
    rows = []
    for number, (image, label) in enumerate(tqdm(pictures, f"write {part} images", disable=None, leave=False)):
        name = f"{part}/{number:06d}.png"
        image.save(draft / "images" / name)
        rows.append((name, int(label), classnames[label]))
    return rows
