"""Full supervision as a Dassl trainer: an upper bound for label-free methods."""

from __future__ import annotations

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
            UserError: If an image has no label.
        """
        super().build_data_loader()
        data = self.labelled_data()
        self.images = images_of(self, [item.impath for item in data])
        self.truth = labels_of(self.images, data)

    def labelled_data(self) -> list[Datum]:
        """Return the training images whose labels are used; never test images."""
        dataset, settings = self.dm.dataset, self.cfg.DATASET
        tests = settings.UNLABELED == "test" or getattr(dataset, "only_tests", False)
        if not settings.NUM_UNLABELED or settings.NUM_SHOTS > 0 or tests:
            return super().labelled_data()
        return list(dataset.train_u or dataset.train_x)
