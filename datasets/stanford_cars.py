"""Stanford Cars: make, model and year of cars (Krause et al. 2013), 196 classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from .annotations import read_mat, read_rows
from .base import Row
from .benchmark import SplitDataset
from .splits import Split, hold_out


@DATASET_REGISTRY.register()
class StanfordCars(SplitDataset):
    """Layout: `<root>/stanford_cars/cars_train/*.jpg`, `cars_test/*.jpg` and the annotations.

    Some mirrors nest the folders once more (`cars_train/cars_train/`), or have the test annotations in `devkit`.
    """

    name = "stanford_cars"
    dataset_dir = "stanford_cars"
    other_dirs = ("stanford-cars",)
    image_dirs = (".",)
    split = "split_zhou_StanfordCars.json"
    unsorted_dir = "cars_train"

    @classmethod
    def moved(cls, images: Path) -> Mapping[str, str]:
        """Return the replacements for folders that a mirror has nested once more."""
        parts = ("cars_train", "cars_test")
        return {part: f"{part}/{part}" for part in parts if (images / part / part).is_dir()}

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Hold out validation images from the annotated training part."""

        def rows(part: str, *paths: str) -> list[Row]:
            path = self.annotation(root, *paths)
            content = read_mat(path)
            cars = lambda: ((f"{part}/{car['fname']}", car["class"]) for car in content["annotations"])  # noqa: E731
            return read_rows(path, names, cars)

        labelled = "cars_test_annos_withlabels.mat"
        return hold_out(
            rows("cars_train", "devkit/cars_train_annos.mat", "cars_train_annos.mat"),
            rows("cars_test", labelled, f"devkit/{labelled}"),
        )
