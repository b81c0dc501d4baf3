"""Experiments on CoFT: parts that know the truth, other doses of the filter, other learning rates.

Not a method: most of them read labels of the training images.
"""

from __future__ import annotations

from functools import partial

from coft.core.errors import UserError
from coft.method.coft import CoFT
from coft.rivals.noise import CoFTWithNoise
from coft.rivals.oracle import OracleSettings, oracle
from dassl.engine import TRAINER_REGISTRY

from .data import labels_of, unlabeled_data
from .pair import PairTrainer


@TRAINER_REGISTRY.register()
class CoFTOracle(PairTrainer):
    """CoFT with a part that an experiment changes: `coft.rivals.oracle`."""

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
        return 0 if self.own.knows == "nothing" and self.own.noise == "none" else len(self.truth)

    def make_method(self) -> CoFT:
        """Build CoFT with what the experiment changes."""
        own, truth, seed = self.own, self.truth, self.cfg.SEED
        make = CoFT if own.noise == "none" else partial(CoFTWithNoise, truth=truth, noise=own.noise, seed=seed)
        args = self.images, self.make_backbone(), own, self.runtime, self.log
        return make(*args, make_optimizer=self.phase1_optimizer, **oracle(own, truth, seed, self.world))
