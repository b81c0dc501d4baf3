"""Full supervision: fine-tuning on the labels of the training split. What a label-free method can hope for at best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coft.method.pseudo_labels import Lesson
from coft.runtime.errors import UserError
from dassl.data.datasets import Datum
from dassl.engine import TRAINER_REGISTRY

from .parts.full_tuning import FullTuning, tuning_keys


def add_config(cfg: Any) -> None:
    """Add the keys of full supervision."""
    own = cfg.TRAINER.SUPERVISED = tuning_keys(cfg)
    own.WISE = 1.0  # with right labels there is nothing to be held back from


@TRAINER_REGISTRY.register()
class Supervised(FullTuning):
    """Models taught the labels of all training images (of DATASET.NUM_SHOTS a class, if that is set).

    With DATASET.NUM_UNLABELED they are the labels of the images that label-free trainers then have, so that both have
    seen the same images.
    Images, views, optimizer and steps are those of CoFT's Phase II.
    """

    settings = "SUPERVISED"
    learns_from_labels = True

    def build_data_loader(self) -> None:
        """Take the labelled images in the order of their content, as label-free trainers do.

        Raises:
            UserError: If no image has a label.
        """
        super().build_data_loader()
        train = self.labeled_images()
        self.pool = self.make_pool([item.impath for item in train])
        self.truth: Tensor = torch.tensor([train[i].label for i in self.pool.order.tolist()])
        if not (self.truth >= 0).any():
            raise UserError("Supervised needs labels, and no training image has one; use a label-free trainer")

    def labeled_images(self) -> list[Datum]:
        """Training images whose labels are taught."""
        train, data = list(self.dm.dataset.train_x), self.cfg.DATASET
        if not data.NUM_UNLABELED or data.NUM_SHOTS > 0:
            return train
        unlabeled = {item.impath for item in self.dm.dataset.train_u}
        return [item for item in train if item.impath in unlabeled] or train  # none, if they are test images

    @property
    def labels_used(self) -> int:
        """Number of labelled images."""
        return int((self.truth >= 0).sum())

    def teach(self) -> None:
        """Teach every model the labels; an image whose label is unknown (negative) is left out."""
        for peer in self.peers.values():
            peer.lesson = Lesson(self.truth, self.truth >= 0)
