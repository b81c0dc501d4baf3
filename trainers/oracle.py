"""CoFT that knows a part of the truth: what a better filter, better seeds or better labels could gain at most.

An experiment, not a method: it reads labels of the training images.
"""

from __future__ import annotations

from coft.method.coft import CoFT
from coft.rivals.oracle import OracleSettings, oracle
from coft.runtime.errors import UserError
from dassl.engine import TRAINER_REGISTRY

from .data import labels_of, unlabeled_data
from .pair import PairTrainer


@TRAINER_REGISTRY.register()
class CoFTOracle(PairTrainer):
    """CoFT with a filter or a rule for the seeds that knows the truth: `coft.rivals.oracle`."""

    section = "COFTORACLE"
    settings_class = OracleSettings
    label_free = False
    learns_from_labels = True

    def build_data_loader(self) -> None:
        """Take the images as CoFT does, and their labels.

        Raises:
            UserError: If one is not known.
        """
        super().build_data_loader()
        self.take_unlabeled()
        self.truth = labels_of(self.images, unlabeled_data(self.cfg, self.dm.dataset, "CoFTOracle"))
        if (self.truth < 0).any():
            raise UserError("CoFTOracle needs the label of every training image; use CoFT, which needs none")

    @property
    def labels_used(self) -> int:
        """Number of images whose labels the oracle reads."""
        return 0 if self.own.knows == "nothing" else len(self.truth)

    def make_method(self) -> CoFT:
        """Build CoFT with what the oracle knows."""
        args = self.images, self.make_backbone(), self.own, self.runtime, self.log
        return CoFT(*args, make_optimizer=self.phase1_optimizer, **oracle(self.own.knows, self.truth))
