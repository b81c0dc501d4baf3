"""DTD: describable textures (Cimpoi et al. 2014), 47 classes."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .benchmark import SplitDataset


@DATASET_REGISTRY.register()
class DescribableTextures(SplitDataset):
    """Layout: `<root>/dtd/images/<class>/*.jpg`."""

    name = "dtd"
    dataset_dir = "dtd"
    image_dirs = ("images", "dtd/images")
    split = "split_zhou_DescribableTextures.json"
