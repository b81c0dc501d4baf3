"""CoFT+: CoFT with iterated tuning, momentum contrastive learning and class descriptions (our reconstruction)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.seeding import derive
from coft.core.settings import setting
from coft.labelling.losses import Term
from coft.labelling.predictor import Predictor
from coft.labelling.protocol import Batch, Engine, Observer, Stream

from .coft import CoFT
from .coft_settings import CoFTSettings
from .contrastive import QUEUE, ContrastingPeer
from .peer import Peer

Describe = Callable[[float], Tensor]
log = logging.getLogger(__name__)
FILTERED_OUT = " aside"  # suffix of the stream of images that the filter leaves out
SEED_DESCRIPTION_SHARE = 0.25  # share of the descriptions in the text features by which the first seeds are chosen
PREDICTION_DESCRIPTION_SHARE = 0.1  # share of the descriptions in the positive vectors at prediction


@dataclass(frozen=True)
class Contrast:
    """Momentum contrastive learning in Phase II."""

    weight: float = setting(0.5, "weight of the contrastive loss; 0: none", at_least=0.0)


@dataclass(frozen=True)
class DescriptionSettings:
    """Class descriptions."""

    from_: str = setting(
        "auto", "auto: of your class file, else of the data set; given: of your class file only; none; or a file"
    )


@dataclass(frozen=True)
class CoFTPlusSettings(CoFTSettings):
    """Settings of CoFT+."""

    rounds: int = setting(2, "rounds of Phase I, each with fresh modules on labels of the one before", at_least=1)
    contrast: Contrast = field(default_factory=Contrast, metadata={"phase2": True})
    descriptions: DescriptionSettings = field(default_factory=DescriptionSettings)


class CoFTPlus(CoFT):
    """CoFT plus three parts: rounds of Phase I, a contrastive loss in Phase II, and class descriptions.

    With `rounds` 1, `contrast.weight` 0 and no descriptions, it is CoFT to the bit.

    Args:
        engine: The engine that runs the method.
        settings: CoFT+ settings.
        observer: Callbacks on pseudo-labels.
        describe: Function of the share of descriptions that returns the text features of the classes, of unit length
            and shape (C, embed_dim); None without descriptions.
        **options: Keyword arguments of `CoFT`.
    """

    settings: CoFTPlusSettings

    def __init__(
        self,
        engine: Engine,
        settings: CoFTPlusSettings,
        observer: Observer | None = None,
        *,
        describe: Describe | None = None,
        **options: Any,
    ) -> None:
        self.rounds, self.describe = settings.rounds, describe
        super().__init__(engine, settings, observer, **options)
        if describe is None and settings.rounds == 1 and not settings.contrast.weight:
            log.info("All parts of CoFT+ are switched off, so it is CoFT")

    # ---------------------------------------------------------------- rounds

    def restarts(self, epoch: int) -> bool:
        """Return whether an epoch is the first of a round after the first round."""
        return self.trains and 0 < epoch < self.phase1_epochs and epoch % self.settings.phase1.epochs == 0

    def is_due(self, epoch: int) -> bool:
        """Return whether all images are relabelled in an epoch."""
        return self.restarts(epoch) or super().is_due(epoch)

    def prepare(self, epoch: int) -> None:
        """Prepare the labels of an epoch. In later rounds of Phase I, they stay as at the beginning of the round."""
        if self.restarts(epoch):
            self.begin_round(epoch // self.settings.phase1.epochs)
        elif self.phase(epoch) == 2 or epoch < self.settings.phase1.epochs:
            super().prepare(epoch)

    def begin_round(self, number: int) -> None:
        """Label all images, keep for each peer the labels more likely right than not, and re-initialise the peers.

        If the filter gives no label a weight above 1/2, all labels with a weight above 0 are kept.

        Args:
            number: Number of the round, from 0.
        """
        labels = {name: each.nonzero() for name, each in self.label_all().items()}
        kept = {name: each.at(torch.nonzero(each.keep).flatten()) for name, each in labels.items()}
        self.labels = {name: kept[name] if len(kept[name].index) else each for name, each in labels.items()}
        for name, peer in self.peers.items():
            prompts, encoder, _ = self.parts_of(name, number)
            peer.restart(prompts, encoder)

    # ---------------------------------------------------------------- descriptions

    def zero_shot_text(self) -> Tensor:
        """Return the text features by which seeds are chosen, with descriptions. Unit length, shape (C, embed_dim)."""
        return super().zero_shot_text() if self.describe is None else self.describe(SEED_DESCRIPTION_SHARE)

    @torch.no_grad()
    def predictor(self) -> Predictor:
        """Return the predictor, with a share of the descriptions in the vectors of the logits.

        Clean log-odds use the positive vectors without descriptions, to which the negative vectors were fitted.
        """
        plain = super().predictor()
        if self.describe is None or not self.trains:
            return plain
        classifiers, widths = {}, [part.positive.shape[1] for part in plain.classifiers.values()]
        joint = self.described.shape[1] == sum(widths)  # concatenated features of two checkpoints
        texts = self.described.split(widths, dim=1) if joint else [self.described] * len(widths)
        for (name, part), text in zip(plain.classifiers.items(), texts, strict=True):
            mixed = torch.lerp(part.positive, F.normalize(text, dim=-1).to(part.positive), PREDICTION_DESCRIPTION_SHARE)
            classifiers[name] = replace(part, positive=F.normalize(mixed, dim=-1))
        return replace(plain, classifiers=classifiers)

    @cached_property
    def described(self) -> Tensor:
        """Text features of the descriptions. Unit length, shape (C, embed_dim)."""
        assert self.describe is not None
        return self.describe(1.0)

    # ---------------------------------------------------------------- contrastive learning

    def make_peer(self, name: str) -> Peer:
        """Build a peer; with a contrastive loss, its queue holds at most half as many keys as there are images."""
        if not self.settings.contrast.weight:
            return super().make_peer(name)
        queue_size = max(1, min(QUEUE, self.num_images // 2))
        seed = derive(self.engine.seed, "projection", name)
        return ContrastingPeer(*self.parts_of(name), queue_size=queue_size, seed=seed, **self.peer_options)

    def contrasts(self, phase: int) -> bool:
        """Return whether a phase has a contrastive loss."""
        return phase == 2 and self.settings.contrast.weight > 0

    def streams(self) -> dict[str, list[Stream]]:
        """Return the streams; with a contrastive loss, they include images that the filter leaves out.

        Their part of a batch is in proportion to their number, but at most as large as that of the others.
        """
        if not (self.trains and self.contrasts(self.phase(self.epoch))):
            return super().streams()
        streams = {}
        for name, labels in self.labels.items():
            kept, aside = (torch.nonzero(mask).flatten() for mask in (labels.weight > 0, labels.weight == 0))
            size = min(self.engine.images.batch_size, len(kept))
            others = min(size, size * len(aside) // len(kept))
            streams[name] = [Stream(name, kept), Stream(name + FILTERED_OUT, aside, others)]
        return streams

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """Compute CoFT's loss, in Phase II plus the contrastive loss.

        Images that the filter leaves out have weight 0 in the cross-entropy, but count in the other terms.
        """
        if not self.contrasts(self.phase(self.epoch)):
            return super().loss(name, batch)
        peer: Any = self.peers[name]
        features = peer.learner().features(batch.views[:, 0])
        losses = self.label_loss(name, peer.learner().classify(features)[0], batch)
        keys = peer.keys(batch.views[:, 1])
        batch.keep(keys)
        each = peer.contrast(features, keys, batch.labels.index, self.labels[name])
        contrast = Term(each.sum(), len(batch.whole.index), self.settings.contrast.weight)
        return losses | {"contrast": contrast}

    def keeps_rows(self, phase: int) -> bool:
        """Return whether momentum keys are kept for `after_step`."""
        return self.contrasts(phase)

    def after_step(self, name: str, index: Tensor, kept: Tensor | None) -> None:
        """Update a peer's moving average, and push the keys of the batch to its queue."""
        super().after_step(name, index, kept)
        if kept is not None:
            cast(Any, self.peers[name]).queue.push(kept, index)
