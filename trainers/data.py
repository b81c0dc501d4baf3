"""Images of a run: which are unlabeled ones, and their labels for people."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from coft.images.batches import UnlabeledImages
from coft.runtime.diagnostics import Diagnostics
from coft.runtime.errors import UserError
from dassl.data.datasets import Datum

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


def labels_of(images: UnlabeledImages, data: Sequence[Datum]) -> torch.Tensor:
    """Label of each image, by index, for diagnostics and for trainers that learn from labels. Shape (N,)."""
    return torch.tensor([data[i].label for i in images.pool.order.tolist()])


def diagnostics_of(images: UnlabeledImages, data: Sequence[Datum]) -> Diagnostics:
    """What compares pseudo-labels with the labels that a benchmark ships."""
    return Diagnostics(labels_of(images, data))
