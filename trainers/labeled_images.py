"""Labelled images for Dassl's loaders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from coft.engine.inputs import decoding_of
from coft.images.reading import decode_image, read_bytes
from dassl.data.datasets import Datum


class LabeledImages(Dataset):
    """Labelled images for Dassl's loaders: the data set wrapper that is passed to its DataManager.

    Args:
        cfg: Config with the size to which images are decoded, see `decoding_of`.
        data_source: Images with labels.
        transform: Transform from an image to a tensor.
        is_train: Unused; part of Dassl's interface.
    """

    def __init__(
        self,
        cfg: Any,
        data_source: Sequence[Datum],
        transform: Callable[[Image.Image], Any] | None = None,
        is_train: bool = False,
    ) -> None:
        self.data_source = data_source
        self.transform = transform
        self.decoding = decoding_of(cfg)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.data_source[index]
        image = decode_image(read_bytes(item.impath), item.impath, self.decoding)
        return {
            "img": image if self.transform is None else self.transform(image),
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": index,
        }
