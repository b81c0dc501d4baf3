"""Food-101: dishes (Bossard et al. 2014), 101 classes."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .benchmark import SplitDataset


@DATASET_REGISTRY.register()
class Food101(SplitDataset):
    """Layout: `<root>/food-101/images/<class>/*.jpg`."""

    name = "food101"
    dataset_dir = "food-101"
    other_dirs = ("food101",)
    image_dirs = ("images", "food-101/images")
    split = "split_zhou_Food101.json"
