"""SUN397: scenes (Xiao et al. 2010), 397 classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dassl.data.datasets import DATASET_REGISTRY

from .annotations import read_lines, read_rows
from .base import Row
from .benchmark import SplitDataset
from .splits import Split, hold_out


@DATASET_REGISTRY.register()
class SUN397(SplitDataset):
    """Layout: `<root>/sun397/SUN397/<letter>/<class>[/<kind>]/*.jpg`. A split is made from the first partition."""

    name = "sun397"
    dataset_dir = "sun397"
    other_dirs = ("SUN397",)
    image_dirs = ("SUN397", "SUN397/SUN397", ".")
    split = "split_zhou_SUN397.json"
    unsorted_dir = "SUN397"

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Hold out validation images from the training part of the first partition."""

        def rows(file: str) -> list[Row]:
            path = self.annotation(root, file, f"Partitions/{file}")
            images = (PurePosixPath(image.lstrip("/")) for (image,) in read_lines(path))
            return read_rows(path, names, lambda: ((str(image), class_of(image)) for image in images))

        return hold_out(rows("Training_01.txt"), rows("Testing_01.txt"))


def class_of(image: PurePosixPath) -> str:
    """Return the class name for a path: "outdoor apartment_building" for "a/apartment_building/outdoor/x.jpg"."""
    return " ".join(reversed(image.parent.parts[1:]))
