"""Oxford Flowers: flowers common in the United Kingdom (Nilsback and Zisserman 2008), 102 classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from .annotations import read_mat, read_rows
from .benchmark import SplitDataset
from .splits import Split, split_by_class


@DATASET_REGISTRY.register()
class OxfordFlowers(SplitDataset):
    """Layout: `<root>/oxford_flowers/jpg/*.jpg` and `imagelabels.mat`. The split is made as in CoOp."""

    name = "oxford_flowers"
    dataset_dir = "oxford_flowers"
    other_dirs = ("flowers-102",)
    image_dirs = ("jpg",)
    split = "split_zhou_OxfordFlowers.json"

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Split the images of each class."""
        path = self.annotation(root, "imagelabels.mat")
        content = read_mat(path)
        numbers = lambda: enumerate(content["labels"].tolist(), start=1)  # noqa: E731
        return split_by_class(read_rows(path, names, lambda: ((f"image_{i:05d}.jpg", of) for i, of in numbers())))
