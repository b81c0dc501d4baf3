"""Data sets that torchvision has a class for, through one adapter: a new one is a line in SETS.

What torchvision reads is written out once as image files. Folders of images by class are accepted as well.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchvision import datasets as tv
from torchvision.datasets.utils import extract_archive

from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import DeclaredDataset, Items, dataset_root, read_split
from .digits import CLASSNAMES as DIGITS
from .folders import read_folders
from .written import write_images

Parts = Mapping[str, Mapping[str, Any]]
BY_FLAG: Parts = {"train": {"train": True}, "test": {"train": False}}
BY_NAME: Parts = {"train": {"split": "train"}, "test": {"split": "test"}}
IDX = {"FashionMNIST": "fashion-mnist", "MNIST": "mnist"}  # sets in IDX files, with Debian's names for them

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
    """A data set of torchvision's.

    Attributes:
        folder: Folder below the data root, and the name that scripts know it by.
        classnames: Names by label.
        parts: What torchvision's class is called with for the training and the test part.
    """

    folder: str
    classnames: tuple[str, ...]
    parts: Parts


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.replace("\n", " ").split(", "))


SETS = {  # by the name of torchvision's class, which is the registered one too
    "CIFAR10": Source("cifar10", _names(CIFAR10), BY_FLAG),
    "CIFAR100": Source("cifar100", _names(CIFAR100), BY_FLAG),
    "FashionMNIST": Source("fashion_mnist", _names(FASHION), BY_FLAG),
    "MNIST": Source("mnist", DIGITS, BY_FLAG),
    "STL10": Source("stl10", _names(STL10), BY_NAME),
    "SVHN": Source("svhn", DIGITS, BY_NAME),
}


class TorchvisionSet(DeclaredDataset):
    """A data set of SETS.

    Layout below `<root>/<folder>`: the files that torchvision downloads, or `images/` and a split file, which are made
    of them on first use, or `train/<class>/` and `test/<class>/`.
    """

    def __init__(self, cfg: Any) -> None:
        name = type(self).__name__
        source, data = SETS[name], dataset_root(cfg)
        self.dataset_dir = str(data / source.folder)
        train, test = read_set(name, data)
        super().__init__(cfg, classnames=source.classnames, train=train, test=test)


for _name, _source in SETS.items():
    # by force: upstream Dassl has data sets of some of these names, for semi-supervised learning
    DATASET_REGISTRY.register(type(_name, (TorchvisionSet,), {"dataset_dir": _source.folder}), force=True)


def split_file(name: str, data: Path) -> Path:
    """Where the split file of a set is, once its images are written."""
    return data / SETS[name].folder / f"split_{SETS[name].folder}.json"


def read_set(name: str, data: Path) -> tuple[Items, Items]:
    """Read the training and test part of a set, writing its images before, if need be.

    Raises:
        UserError: If there is nothing to read.
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
    """Write the images of a set from the files that torchvision, or Debian, has of it.

    Raises:
        UserError: If there are none below the data root.
    """
    source = SETS[name]
    with _places(name, data) as places:
        for place in places:
            pictures = _open(name, place)
            if pictures:
                write_images(data / source.folder, split_file(name, data).name, source.classnames, pictures)
                return
    raise UserError(
        f"{source.folder}: nothing at {data / source.folder}; run: bash scripts/data.sh {source.folder}, "
        f"or set DATA to the folder that has it"
    )


def _open(name: str, place: Path) -> dict[str, Any]:
    """Open both parts with torchvision, which compares checksums; nothing if it doesn't find them."""
    maker: Callable[..., Any] = getattr(tv, name)
    try:
        return {part: maker(str(place), **options) for part, options in SETS[name].parts.items()}
    except RuntimeError:  # not found or corrupted
        return {}
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{name}: the files at {place} are damaged ({error}); fetch them again") from error


@contextmanager
def _places(name: str, data: Path) -> Iterator[list[Path]]:
    """Folders where torchvision may find its files. IDX files that lie elsewhere are unpacked to a temporary one."""
    places = [data / SETS[name].folder, data]
    with tempfile.TemporaryDirectory() as scratch:
        if name in IDX and (found := _idx_files(name, data)):
            _unpack_idx(found, Path(scratch) / name / "raw")
            places.append(Path(scratch))
        yield places


def _idx_files(name: str, data: Path) -> list[Path]:
    """IDX files of a set, gzipped or not: in its folder, or where Debian's package puts them."""
    debian = [Path("usr/share/datasets") / IDX[name], Path("usr/share") / f"dataset-{IDX[name]}"]
    folder = data / SETS[name].folder
    places = [folder, folder / "raw", *(base / path for path in debian for base in (folder, data, Path("/")))]
    for place in [*places, data / f"dataset-{IDX[name]}"]:
        found = sorted(place.glob("*-ubyte.gz")) or sorted(place.glob("*-ubyte"))
        if len(found) == 4:
            return found
    return []


def _unpack_idx(files: list[Path], raw: Path) -> None:
    raw.mkdir(parents=True)
    for file in files:
        try:
            (extract_archive if file.suffix == ".gz" else shutil.copy)(str(file), str(raw))
        except (OSError, EOFError) as error:
            raise UserError(f"{file} is damaged ({error}); fetch it again") from error
