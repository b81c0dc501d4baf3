"""Images of a run: Dassl's loaders, and the unlabeled images without their labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from coft.images.batches import UnlabeledImages
from coft.images.unlabeled import UnlabeledPool
from coft.images.views import Inputs
from coft.runtime.diagnostics import Diagnostics
from coft.runtime.errors import UserError
from dassl.data.datasets import Datum

from .labeled_images import decoding_of

log = logging.getLogger(__name__)


def unlabeled_data(cfg: Any, dataset: Any, trainer: str) -> list[Datum]:
    """All training images that are to be had: data sets in CoOp's style have them in train_x alone.

    Raises:
        UserError: If the images that are there were chosen by their labels.
    """
    shots, which = cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES
    if shots > 0 and not dataset.train_u:
        raise UserError(
            f"DATASET.NUM_SHOTS {shots} leaves {cfg.DATASET.NAME} the images of a few labels alone, and {trainer} "
            f"reads no label: leave it at -1, or give the data set a train_u of all images"
        )
    if which != "all":
        log.warning("DATASET.SUBSAMPLE_CLASSES %s leaves out images of other classes, by their labels", which)
    return list(dataset.train_u or dataset.train_x)


def unlabeled_images(cfg: Any, paths: Sequence[str], hashes: Mapping[str, str] | None = None) -> UnlabeledImages:
    """Take images in the order of their content, read and kept as INPUT says.

    Args:
        cfg: INPUT, DATALOADER and USE_CUDA are read.
        paths: Image files.
        hashes: SHA-256 of files whose content is known already, by path.
    """
    pool = UnlabeledPool(paths, cfg.INPUT.CACHE_MB << 20, hashes, decoding_of(cfg))
    return UnlabeledImages(
        pool,
        inputs_of(cfg),
        batch_size=cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
        test_batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )


def inputs_of(cfg: Any) -> Inputs:
    """What CLIP reads, and how images are augmented, by INPUT."""
    own = cfg.INPUT
    return Inputs(own.SIZE[0], tuple(own.PIXEL_MEAN), tuple(own.PIXEL_STD), own.INTERPOLATION, own.AUGMENT)


def labels_of(images: UnlabeledImages, data: Sequence[Datum]) -> torch.Tensor:
    """Label of each image, by index, for diagnostics and for trainers that learn from labels. Shape (N,)."""
    return torch.tensor([data[i].label for i in images.pool.order.tolist()])


def diagnostics_of(images: UnlabeledImages, data: Sequence[Datum]) -> Diagnostics:
    """What compares pseudo-labels with the labels that a benchmark ships."""
    return Diagnostics(labels_of(images, data))
