"""Images of a Dassl run: the unlabeled pool, its labels for diagnostics, and further properties of the data set."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from coft.core import processes
from coft.core.errors import UserError
from coft.core.untrusted import digest_of
from coft.engine.class_names import GENERIC
from coft.engine.diagnostics import Diagnostics
from coft.engine.inputs import decoding_of, unlabeled_images
from coft.images.batches import UnlabeledImages
from coft.images.reading import decode_image, read_bytes
from dassl.data import DataManager
from dassl.data.datasets import Datum
from datasets.templates import TEMPLATES

log = logging.getLogger(__name__)


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


def data_manager(trainer: Any) -> DataManager:
    """Build Dassl's data manager on `LabeledImages`, whose errors name an image that cannot be read.

    Raises:
        UserError: If the trainer learns from labels but the images are a user's own.
    """
    with processes.main_process_first(trainer.world):  # the main process may have to unpack or draw the images
        dm = DataManager(trainer.cfg, dataset_wrapper=LabeledImages)
    if trainer.spec.learns_from_labels and reports_predictions(dm.dataset):
        raise UserError(
            f"{trainer.spec.trainer} learns from labels, and your own images have none: use a label-free trainer, "
            f"such as CoFT (names of folders serve the evaluation only)"
        )
    return dm


def templates_in(dataset: Any, name: str) -> tuple[str, ...]:
    """Return the data set's own templates, which may depend on its chosen part, else those of its registered name."""
    return tuple(getattr(dataset, "templates", ())) or TEMPLATES.get(name, GENERIC)


def unlabeled_part(dataset: Any) -> str:
    """Return a description of the unlabeled images, in words."""
    return getattr(dataset, "unlabeled_part", "training images")


def reports_predictions(dataset: Any) -> bool:
    """Return whether the images are a user's own, which are predicted, not evaluated, since labels may be missing."""
    return bool(getattr(dataset, "reports_predictions", False))


def check_labelled(trainer: Any) -> None:
    """Check that training images have labels if the trainer learns from them, and test images if they are evaluated.

    Raises:
        UserError: If one has none; the message names it.
    """
    name, dataset = trainer.spec.trainer, trainer.dm.dataset
    trained = trainer.labelled_data() if trainer.spec.learns_from_labels else ()
    if unknown := [item.impath for item in trained if item.label < 0]:
        raise UserError(
            f"{name} learns from labels, and image {unknown[0]} has none (-1 in the split); give it one, or take a "
            f"trainer without labels, such as CoFT"
        )
    tested = () if reports_predictions(dataset) else dataset.test
    if unknown := [item.impath for item in tested if item.label < 0]:
        raise UserError(f"data set {trainer.cfg.DATASET.NAME}: test image {unknown[0]} has no label; leave it out")


def hash_of_labelled(items: Sequence[Datum]) -> str:
    """Return a hash of the labels and contents of images, in their order: 16 hexadecimal digits."""
    contents = [(item.label, digest_of(item.impath)) for item in items]
    return hashlib.sha256(repr(contents).encode()).hexdigest()[:16]


def labels_known(dataset: Any) -> bool:
    """Return whether any test image has a label."""
    return any(item.label >= 0 for item in dataset.test)


def unlabeled_of(trainer: Any) -> tuple[UnlabeledImages, Diagnostics]:
    """Return a trainer's training images without labels, and the diagnostics, which alone get the labels."""
    dataset = trainer.dm.dataset
    data = unlabeled_data(trainer.cfg, dataset, trainer.spec.trainer)
    images = images_of(trainer, [item.impath for item in data], getattr(dataset, "content_hashes", None))
    log.info("Unlabeled images: %d, the %s", len(images), unlabeled_part(dataset))
    return images, Diagnostics(labels_of(images, data))


def images_of(trainer: Any, paths: Sequence[str], hashes: Mapping[str, str] | None = None) -> UnlabeledImages:
    """Build the pool of unlabeled images; see `unlabeled_images`.

    Raises:
        UserError: If the list of files is not the same on all ranks.
    """
    names = hashlib.sha256("\n".join(Path(path).name for path in paths).encode(errors="surrogateescape"))
    seen = {"the list of image files (its hash)": names.hexdigest()[:16], "their number": len(paths)}
    processes.check_same(trainer.world, seen, "all machines need the same images under DATASET.ROOT")
    return unlabeled_images(trainer.cfg, paths, hashes, world=trainer.world)


def unlabeled_data(cfg: Any, dataset: Any, trainer: str) -> list[Datum]:
    """Return all training images: those of train_u, or of train_x, since data sets in CoOp's style have no train_u.

    Raises:
        UserError: If DATASET.NUM_SHOTS leaves only images that were chosen by their labels.
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
        log.warning(
            "DATASET.RATIO %g samples the unlabeled images by their labels; for experiments only", cfg.DATASET.RATIO
        )
    return list(dataset.train_u or dataset.train_x)


def labels_of(images: UnlabeledImages, data: Sequence[Datum]) -> torch.Tensor:
    """Return the label of each image by index, for diagnostics and for trainers that learn from labels. Shape (N,)."""
    return torch.tensor([data[i].label for i in images.pool.order.tolist()])
