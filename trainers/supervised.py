"""Full supervision as a Dassl trainer: an upper bound for label-free methods."""

from __future__ import annotations

from coft.core.errors import UserError
from coft.engine.specs import SPECS
from dassl.data.datasets import Datum
from dassl.engine import TRAINER_REGISTRY

from .base import MethodTrainer
from .data import images_of, labels_of


@TRAINER_REGISTRY.register()
class Supervised(MethodTrainer):
    """Full fine-tuning on the labels of all training images (of DATASET.NUM_SHOTS per class, if that is set).

    With DATASET.NUM_UNLABELED, only the images of label-free trainers are used, so that both see the same images.
    Images, strong views, optimizer and steps are those of CoFT's Phase II.
    """

    spec = SPECS["Supervised"]

    def build_data_loader(self) -> None:
        """Build Dassl's loaders, and the labelled images in the order of their content hashes, as label-free trainers.

        Raises:
            UserError: If no image has a label.
        """
        super().build_data_loader()
        data = self.labeled_data()
        self.images = images_of(self, [item.impath for item in data])
        self.truth = labels_of(self.images, data)
        if not (self.truth >= 0).any():
            raise UserError("Supervised needs labels, and no training image has one; use a label-free trainer")

    def labeled_data(self) -> list[Datum]:
        """Return the training images whose labels are used."""
        train, dataset = list(self.dm.dataset.train_x), self.cfg.DATASET
        if not dataset.NUM_UNLABELED or dataset.NUM_SHOTS > 0:
            return train
        unlabeled = {item.impath for item in self.dm.dataset.train_u}
        return [item for item in train if item.impath in unlabeled] or train  # none, if these are test images

    @property
    def labels_used(self) -> int:
        """Number of labelled images."""
        assert self.truth is not None
        return int((self.truth >= 0).sum())
