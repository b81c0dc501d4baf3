"""Experiments on CoFT: parts that know the truth, other doses of the filter, other learning rates.

Not a method: most of them read labels of the training images.
"""

from __future__ import annotations

from coft.core.errors import UserError
from coft.engine.session import Session
from coft.engine.specs import MethodSpec
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer
from trainers.data import labels_of, unlabeled_data, unlabeled_of

from .method import CoFTWithTruth, OracleSettings


def make(session: Session) -> CoFTWithTruth:
    """Build CoFT with what the experiment changes."""
    assert session.task.truth is not None
    args = session.task.truth, session.engine, session.settings, session.observer
    return CoFTWithTruth(*args, guard=session.cfg.TRAIN.GUARD)


@TRAINER_REGISTRY.register()
class CoFTOracle(MethodTrainer):
    """CoFT with a part that an experiment changes: `scripts.oracle.method`."""

    spec = MethodSpec("CoFTOracle", OracleSettings, make, label_free=False, two_peers=True, learns_from_labels=True)

    def build_data_loader(self) -> None:
        """Take the images as CoFT does, and their labels.

        Raises:
            UserError: If one is not known.
        """
        super().build_data_loader()
        self.images, self.diagnostics = unlabeled_of(self)
        self.truth = labels_of(self.images, unlabeled_data(self.cfg, self.dm.dataset, "CoFTOracle"))
        if (self.truth < 0).any():
            raise UserError("CoFTOracle needs the label of every training image; use CoFT, which needs none")

    @property
    def labels_used(self) -> int:
        """Number of images whose labels the oracle reads."""
        settings = self.session.settings
        assert self.truth is not None
        return 0 if settings.knows == "nothing" and settings.noise == "none" else len(self.truth)
