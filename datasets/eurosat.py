"""EuroSAT: satellite views of ten kinds of land use (Helber et al. 2019), in CoOp's layout."""

from __future__ import annotations

from typing import Any

from dassl.data.datasets import DATASET_REGISTRY

from .base import DeclaredDataset, dataset_root, read_split, require

CLASSNAMES = (
    "Annual Crop Land",
    "Forest",
    "Herbaceous Vegetation Land",
    "Highway or Road",
    "Industrial Buildings",
    "Pasture Land",
    "Permanent Crop Land",
    "Residential Buildings",
    "River",
    "Sea or Lake",
)


@DATASET_REGISTRY.register()
class EuroSAT(DeclaredDataset):
    """EuroSAT RGB with CoOp's split: 13,500 training, 5,400 validation and 8,100 test images of 64x64.

    Layout: `<root>/eurosat/2750/<Class>/*.jpg` and `<root>/eurosat/split_zhou_EuroSAT.json`.
    """

    dataset_dir = "eurosat"

    def __init__(self, cfg: Any) -> None:
        self.dataset_dir = str(dataset_root(cfg) / "eurosat")
        how = "put EuroSAT there in CoOp's layout (eurosat/2750/<Class>/*.jpg), or set DATA to the folder that has it"
        root = require(dataset_root(cfg) / "eurosat", "EuroSAT", how)
        images = require(root / "2750", "EuroSAT", how)
        split = require(root / "split_zhou_EuroSAT.json", "EuroSAT", "put CoOp's split file there")
        train, val, test = read_split(split, images)
        super().__init__(cfg, classnames=CLASSNAMES, train=train, val=val, test=test)
