"""FGVC Aircraft: variants of aircraft (Maji et al. 2013), 100 classes, with the split of its authors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from .annotations import read_lines, read_rows
from .base import PARTS, Items, Row, items_of
from .benchmark import SplitDataset


@DATASET_REGISTRY.register()
class FGVCAircraft(SplitDataset):
    """Layout: `<root>/fgvc_aircraft/images/*.jpg` and the lists `images_variant_{train,val,test}.txt`."""

    name = "fgvc_aircraft"
    dataset_dir = "fgvc_aircraft"
    other_dirs = ("fgvc-aircraft-2013b/data", "fgvc_aircraft/fgvc-aircraft-2013b/data", "fgvc-aircraft-2013b")
    split = "images_variant_train.txt"

    def read(self, root: Path, images: Path, names: Sequence[str]) -> tuple[Items, Items, Items]:
        """Read the lists of the three parts."""

        def rows(part: str) -> list[Row]:
            path = self.annotation(root, f"images_variant_{part}.txt")
            lines = read_lines(path)
            return read_rows(path, names, lambda: ((f"{image}.jpg", " ".join(variant)) for image, *variant in lines))

        return items_of({part: rows(part) for part in PARTS}, images, {})
