"""Oxford Flowers: flowers common in the United Kingdom (Nilsback and Zisserman 2008), 102 classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from .benchmark import SplitDataset, read_mat
from .splits import Split, split_by_class


@DATASET_REGISTRY.register()
class OxfordFlowers(SplitDataset):
    """Layout: `<root>/oxford_flowers/jpg/*.jpg` and `imagelabels.mat`. The split is made as CoOp makes it."""

    name = "oxford_flowers"
    dataset_dir = "oxford_flowers"
    other_dirs = ("flowers-102",)
    image_dirs = ("jpg",)
    split = "split_zhou_OxfordFlowers.json"

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Split the images of each class."""
        labels = read_mat(self.annotation(root, "imagelabels.mat"))["labels"].tolist()
        rows = [(f"image_{i:05d}.jpg", label - 1, names[label - 1]) for i, label in enumerate(labels, start=1)]
        return split_by_class(rows)
