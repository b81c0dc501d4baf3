"""FGVC Aircraft: variants of aircraft (Maji et al. 2013), 100 classes, with the split of its authors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import Items, datum
from .benchmark import SplitDataset, read_lines


@DATASET_REGISTRY.register()
class FGVCAircraft(SplitDataset):
    """Layout: `<root>/fgvc_aircraft/images/*.jpg` and the lists `images_variant_{train,val,test}.txt`."""

    name = "fgvc_aircraft"
    dataset_dir = "fgvc_aircraft"
    other_dirs = ("fgvc-aircraft-2013b/data", "fgvc_aircraft/fgvc-aircraft-2013b/data", "fgvc-aircraft-2013b")
    split = "images_variant_train.txt"

    def read(self, root: Path, images: Path, names: Sequence[str]) -> tuple[Items, Items, Items]:
        """Read the lists of the three parts."""
        label_of = {name: label for label, name in enumerate(names)}

        def part(name: str) -> Items:
            path = self.annotation(root, f"images_variant_{name}.txt")
            rows = [(image, " ".join(variant)) for image, *variant in read_lines(path)]
            unknown = [variant for _, variant in rows if variant not in label_of]
            if unknown:
                raise UserError(f"{path}: {unknown[0]!r} is no variant of FGVC Aircraft 2013b; fetch it again")
            return [datum(images / f"{image}.jpg", label_of[variant], variant) for image, variant in rows]

        return part("train"), part("val"), part("test")
