"""SUN397: scenes (Xiao et al. 2010), 397 classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import Row
from .benchmark import SplitDataset, read_lines
from .splits import Split, hold_out


@DATASET_REGISTRY.register()
class SUN397(SplitDataset):
    """Layout: `<root>/sun397/SUN397/<letter>/<class>[/<kind>]/*.jpg`. A split is made from the first partition."""

    name = "sun397"
    dataset_dir = "sun397"
    other_dirs = ("SUN397",)
    image_dirs = ("SUN397", "SUN397/SUN397", ".")
    split = "split_zhou_SUN397.json"

    @classmethod
    def sorted_by_class(cls, root: Path) -> bool:
        """Whether the images come from a mirror that sorted them by class."""
        return not (root / "SUN397").is_dir() and (root / "train").is_dir() and (root / "test").is_dir()

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Hold out validation images of the training part of the first partition."""
        label_of = {name: label for label, name in enumerate(names)}

        def rows(file: str) -> list[Row]:
            path = self.annotation(root, file, f"Partitions/{file}")
            images = [PurePosixPath(image.lstrip("/")) for (image,) in read_lines(path)]
            named_images = [(str(image), class_of(image)) for image in images]
            unknown = [name for _, name in named_images if name not in label_of]
            if unknown:
                raise UserError(f"{path}: {unknown[0]!r} is no class of SUN397; fetch it again")
            return [(image, label_of[name], name) for image, name in named_images]

        return hold_out(rows("Training_01.txt"), rows("Testing_01.txt"))


def class_of(image: PurePosixPath) -> str:
    """The class name of a path: "a/apartment_building/outdoor/x.jpg" is of "outdoor apartment_building"."""
    return " ".join(reversed(image.parent.parts[1:]))
