"""ImageNet (Deng et al. 2009), and four test sets for models trained on it: V2, Sketch, A(dversarial), R(endition)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .annotations import read_lines
from .base import DeclaredDataset, Items, dataset_root, datum
from .folders import class_folders, image_files


class ImageNetFamily(DeclaredDataset):
    """Images in folders named after WordNet synsets. `classnames.txt` has the class names of CLIP's authors.

    Attributes:
        name: Name in scripts.
        dataset_dir: Folder of the data set below the data root.
        images: Folder of the test images in it.
    """

    name: ClassVar[str] = ""
    dataset_dir = ""
    images: ClassVar[str] = ""
    distinct_names = False  # CLIP's list has "missile" and "sunglasses" twice

    def __init__(self, cfg: Any) -> None:
        root = dataset_root(cfg)
        self.dataset_dir = str(root / self.dataset_dir)
        names = self.read_names(root)
        train = self.read(self.training, names) if self.training else []
        test = self.read(Path(self.dataset_dir) / self.images, names)
        super().__init__(cfg, classnames=list(self.classes(names).values()), train=train, test=test)

    @property
    def training(self) -> Path | None:
        """Folder of the training images; None for a set that only has a test part."""
        return None

    def read_names(self, root: Path) -> dict[str, str]:
        """Read class names by synset, from `classnames.txt` of this data set or of ImageNet.

        Raises:
            UserError: If there is no such file, or it has another format.
        """
        candidates = [Path(self.dataset_dir) / "classnames.txt", root / "imagenet" / "classnames.txt"]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            raise self.missing(candidates[0])
        lines = read_lines(path)
        if not lines or not all(len(line) > 1 for line in lines):
            raise UserError(f"{path}: expected lines of a synset and its name, such as 'n01440764 tench'")
        return {synset: " ".join(words) for synset, *words in lines}

    def missing(self, path: Path) -> UserError:
        """Return the error for a missing file or folder."""
        name = type(self).__name__
        return UserError(f"{name}: no {path.name} at {path}; see: bash scripts/data.sh {self.name}")

    def classes(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return class names by folder, in the order of labels: those of the folders of test images, sorted by name.

        Raises:
            UserError: If there are no folders, or one has no class name.
        """
        folder = Path(self.dataset_dir) / self.images
        if not folder.is_dir():
            raise self.missing(folder)
        synsets = [path.name for path in class_folders(folder)]
        unknown = [synset for synset in synsets if synset not in names]
        if unknown:
            raise UserError(f"folder {folder / unknown[0]} is of no class in classnames.txt; take it out")
        return {synset: names[synset] for synset in synsets}

    def read(self, folder: Path, names: Mapping[str, str]) -> Items:
        """Read the images of all classes that have a folder.

        Raises:
            UserError: If the folder is missing.
        """
        if not folder.is_dir():
            raise self.missing(folder)
        named_folders = [(folder / subfolder, name) for subfolder, name in self.classes(names).items()]
        return [
            datum(path, label, name)
            for label, (subfolder, name) in enumerate(named_folders)
            if subfolder.is_dir()
            for path in image_files(subfolder)
        ]


@DATASET_REGISTRY.register()
class ImageNet(ImageNetFamily):
    """Layout: `<root>/imagenet/images/{train,val}/<synset>/*` and `classnames.txt`. The test part is `val`."""

    name = "imagenet"
    dataset_dir = "imagenet"
    images = "images/val"

    @property
    def training(self) -> Path:
        """Folder of the training images."""
        return Path(self.dataset_dir) / "images" / "train"


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetFamily):
    """Layout: `<root>/imagenetv2/imagenetv2-matched-frequency-format-val/<class number>/*`."""

    name = "imagenetv2"
    dataset_dir = "imagenetv2"
    images = "imagenetv2-matched-frequency-format-val"

    def classes(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return class names by class number, the name of their folder."""
        return {str(number): name for number, name in enumerate(names.values())}


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetFamily):
    """Layout: `<root>/imagenet-sketch/images/<synset>/*`."""

    name = "imagenet_sketch"
    dataset_dir = "imagenet-sketch"
    images = "images"


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetFamily):
    """Layout: `<root>/imagenet-adversarial/imagenet-a/<synset>/*`, with 200 of the classes."""

    name = "imagenet_a"
    dataset_dir = "imagenet-adversarial"
    images = "imagenet-a"


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetFamily):
    """Layout: `<root>/imagenet-rendition/imagenet-r/<synset>/*`, with 200 of the classes."""

    name = "imagenet_r"
    dataset_dir = "imagenet-rendition"
    images = "imagenet-r"
