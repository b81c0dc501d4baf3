"""EuroSAT: satellite views of ten kinds of land use (Helber et al. 2019), in CoOp's layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from .benchmark import SplitDataset

NAMES = {  # class names by folder
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}
CLASSNAMES = tuple(NAMES.values())


@DATASET_REGISTRY.register()
class EuroSAT(SplitDataset):
    """EuroSAT RGB with CoOp's split: 13,500 training, 5,400 validation and 8,100 test images of 64x64.

    Layout: `<root>/eurosat/2750/<Class>/*.jpg` and `<root>/eurosat/split_zhou_EuroSAT.json`.
    """

    name = "eurosat"
    dataset_dir = "eurosat"
    image_dirs = ("2750", "EuroSAT/2750", "EuroSAT", "EuroSAT_RGB")
    split = "split_zhou_EuroSAT.json"

    @classmethod
    def declare(cls, root: Path) -> list[str]:
        """Return the class names by label."""
        return list(CLASSNAMES)

    @classmethod
    def folder_names(cls) -> Mapping[str, str | None]:
        """Return the class names by folder."""
        return NAMES
