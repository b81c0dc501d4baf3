"""Images of a run: which are unlabeled ones, and their labels for people; what a data set declares beside them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from coft.core import processes
from coft.core.errors import UserError
from coft.engine.diagnostics import Diagnostics
from coft.engine.inputs import unlabeled_images
from coft.images.batches import UnlabeledImages
from dassl.data import DataManager
from dassl.data.datasets import Datum
from datasets.templates import templates_of

from .labeled_images import LabeledImages

log = logging.getLogger(__name__)
GROUPED = {"RandomDomainSampler", "SeqDomainSampler", "RandomClassSampler"}  # of some images they make no batch


def data_manager(trainer: Any) -> DataManager:
    """Dassl's data manager on a reader that names an image it cannot read.

    Raises:
        UserError: If the trainer learns from labels, and the data set is a user's own images; or if a sampler makes no
            batch of the images.
    """
    sampler = trainer.cfg.DATALOADER.TRAIN_X.SAMPLER
    try:
        with processes.first_alone(trainer.world):  # which may have to unpack or draw the images
            dm = DataManager(trainer.cfg, dataset_wrapper=LabeledImages)
    except (AssertionError, ValueError) as error:
        if sampler not in GROUPED:
            raise
        raise UserError(f"DATALOADER.TRAIN_X.SAMPLER {sampler}: {error}; leave it at RandomSampler") from error
    if trainer.spec.learns_from_labels and reports_predictions(dm.dataset):
        raise UserError(
            f"{trainer.spec.trainer} learns from labels, and your own images have none: use a label-free trainer, "
            f"such as CoFT (names of folders serve the evaluation only)"
        )
    return dm


def templates_in(dataset: Any, name: str) -> tuple[str, ...]:
    """Templates of a data set of some name; its own may depend on which part of it was chosen."""
    return tuple(getattr(dataset, "templates", ())) or templates_of(name)


def unlabeled_part(dataset: Any) -> str:
    """What the unlabeled images are, in words."""
    return getattr(dataset, "unlabeled_part", "training images")


def reports_predictions(dataset: Any) -> bool:
    """Whether the images are a user's own: they are predicted, and there may be no label to compare with."""
    return bool(getattr(dataset, "reports_predictions", False))


def labels_known(dataset: Any) -> bool:
    """Whether a test image has a label."""
    return any(item.label >= 0 for item in dataset.test)


def unlabeled_of(trainer: Any) -> tuple[UnlabeledImages, Diagnostics]:
    """A trainer's training images without their labels; these go to the diagnostics alone."""
    dataset = trainer.dm.dataset
    data = unlabeled_data(trainer.cfg, dataset, trainer.spec.trainer)
    images = images_of(trainer, [item.impath for item in data], getattr(dataset, "content_hashes", None))
    log.info("Unlabeled images: %d, the %s", len(images), unlabeled_part(dataset))
    return images, diagnostics_of(images, data)


def images_of(trainer: Any, paths: Sequence[str], hashes: Mapping[str, str] | None = None) -> UnlabeledImages:
    """Take images in the order of their content; see `unlabeled_images`.

    Raises:
        UserError: If processes have different files.
    """
    names = hashlib.sha256("\n".join(Path(path).name for path in paths).encode(errors="surrogateescape"))
    seen = {"the list of image files (its hash)": names.hexdigest()[:16], "their number": len(paths)}
    processes.check_same(trainer.world, seen, "all machines need the same images under DATASET.ROOT")
    return unlabeled_images(trainer.cfg, paths, hashes, world=trainer.world)


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
    if cfg.DATASET.RATIO > 1:
        log.warning("DATASET.RATIO %g draws the unlabeled images by their labels: an experiment", cfg.DATASET.RATIO)
    return list(dataset.train_u or dataset.train_x)


def labels_of(images: UnlabeledImages, data: Sequence[Datum]) -> torch.Tensor:
    """Label of each image, by index, for diagnostics and for trainers that learn from labels. Shape (N,)."""
    return torch.tensor([data[i].label for i in images.pool.order.tolist()])


def diagnostics_of(images: UnlabeledImages, data: Sequence[Datum]) -> Diagnostics:
    """What compares pseudo-labels with the labels that a benchmark ships."""
    return Diagnostics(labels_of(images, data))
