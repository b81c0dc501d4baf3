"""Caltech 101: objects (Fei-Fei et al. 2004), 100 classes in CoOp's selection."""

from __future__ import annotations

from collections.abc import Mapping

from dassl.data.datasets import DATASET_REGISTRY

from .benchmark import SplitDataset


@DATASET_REGISTRY.register()
class Caltech101(SplitDataset):
    """Layout: `<root>/caltech-101/101_ObjectCategories/<class>/*.jpg`."""

    name = "caltech101"
    dataset_dir = "caltech-101"
    other_dirs = ("caltech101",)
    image_dirs = ("101_ObjectCategories", "caltech-101/101_ObjectCategories")
    split = "split_zhou_Caltech101.json"

    @classmethod
    def folder_names(cls) -> Mapping[str, str | None]:
        """Return the folders whose names differ from those of their classes.

        Four class names are singular. The background is not a class, and Faces_easy repeats the images of Faces.
        """
        renamed = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}
        return {**renamed, "BACKGROUND_Google": None, "Faces_easy": None}
