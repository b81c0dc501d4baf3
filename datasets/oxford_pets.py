"""Oxford-IIIT Pets: breeds of cats and dogs (Parkhi et al. 2012), 37 classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from .annotations import read_lines, read_rows
from .base import Row
from .benchmark import SplitDataset
from .splits import Split, hold_out


@DATASET_REGISTRY.register()
class OxfordPets(SplitDataset):
    """Layout: `<root>/oxford_pets/images/*.jpg` and `annotations/`."""

    name = "oxford_pets"
    dataset_dir = "oxford_pets"
    other_dirs = ("oxford-iiit-pet",)
    split = "split_zhou_OxfordPets.json"

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Hold out validation images from the annotated training part."""

        def rows(file: str) -> list[Row]:
            path = self.annotation(root, f"annotations/{file}")
            lines = read_lines(path)
            return read_rows(path, names, lambda: ((f"{image}.jpg", int(number)) for image, number, *_ in lines))

        return hold_out(rows("trainval.txt"), rows("test.txt"))
