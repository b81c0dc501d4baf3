"""CoFT+: CoFT with iterated tuning, momentum contrastive learning and class descriptions (our reconstruction)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.seeding import derive
from coft.core.settings import setting
from coft.labelling.classifier import Classifier

from .coft import CoFT
from .coft_settings import CoFTSettings
from .contrastive import DIM, QUEUE, ContrastingPeer
from .optimizers import restarts
from .pair import Losses
from .peer import Peer
from .protocol import Backbone, Batch, Images, Part, Runtime

Describe = Callable[[float], Tensor]
log = logging.getLogger(__name__)
ASIDE = " aside"  # names the images of a batch that the filter leaves out
AT_SEEDS = 0.25  # share of the descriptions in the text features that choose the first seeds
AT_PREDICTION = 0.1  # and in the positive vectors that predict


@dataclass(frozen=True)
class Contrast:
    """Momentum contrastive learning in Phase II."""

    weight: float = setting(0.0, "weight of the contrastive loss, such as 0.5; 0: none", at_least=0.0)


@dataclass(frozen=True)
class DescriptionSettings:
    """Class descriptions."""

    from_: str = setting("given", "given: those in your file of classes; auto: also the data set's; none; or a file")


@dataclass(frozen=True)
class CoFTPlusSettings(CoFTSettings):
    """Settings of CoFT+."""

    rounds: int = setting(2, "how often Phase II is run, each time on from where the last one ended", at_least=1)
    contrast: Contrast = field(default_factory=Contrast)
    descriptions: DescriptionSettings = field(default_factory=DescriptionSettings)


class DescribedClassifier(Classifier):
    """A classifier whose logits are of positive vectors with a share of descriptions.

    Its clean log-odds are of the positive vectors alone: the negative ones were fitted to those.

    Args:
        plain: Encoder, vectors and scale.
        described: Unit-length text features of the descriptions. Shape (C, embed_dim).
        share: Of the descriptions in the vectors of the logits.
    """

    def __init__(self, plain: Classifier, described: Tensor, share: float) -> None:
        super().__init__(plain.encoder, plain.positive, plain.negative, plain.scale)
        with torch.no_grad():
            self.mixed: Tensor = torch.lerp(F.normalize(plain.positive, dim=-1), described.to(plain.device), share)

    @property
    def named_by(self) -> Tensor:
        """The unit vectors of the logits. Shape (C, embed_dim)."""
        return F.normalize(self.mixed, dim=-1)

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compare image features with the classes' vectors; as of `Classifier`."""
        _, log_odds = super().classify(features)
        with torch.autocast(features.device.type, enabled=False):
            return self.scale * features @ self.named_by.t(), log_odds


class CoFTPlus(CoFT):
    """CoFT plus three parts, each with a setting. By default Phase II has two rounds, which help on some photographs.

    `rounds` 1, `contrast.weight` 0 and no descriptions make it CoFT, to the bit. Descriptions that a user wrote count.

    Args:
        images: As of `CoFT`.
        backbone: As of `CoFT`.
        settings: See `CoFTPlusSettings`.
        runtime: As of `CoFT`.
        describe: Text features of the classes with a share of descriptions, unit length, shape (C, embed_dim); None
            where there are no descriptions.
        **options: As of `CoFT`.
    """

    settings: CoFTPlusSettings

    def __init__(
        self,
        images: Images,
        backbone: Backbone,
        settings: CoFTPlusSettings,
        runtime: Runtime,
        *,
        describe: Describe | None = None,
        **options: Any,
    ) -> None:
        self.rounds, self.describe = settings.rounds, describe
        self.described = None if describe is None else describe(1.0)
        super().__init__(images, backbone, settings, runtime, **({"schedule": restarts(self.rounds)} | options))
        if describe is None and settings.rounds == 1 and not settings.contrast.weight:
            log.info("CoFT+ without any of its parts is CoFT; all of them: --preset all_parts")

    # ---------------------------------------------------------------- descriptions

    def zero_shot_text(self) -> Tensor:
        """Text features that choose the first seeds, with descriptions. Unit length, shape (C, embed_dim)."""
        return super().zero_shot_text() if self.describe is None else self.describe(AT_SEEDS)

    def prediction_models(self) -> dict[str, Classifier]:
        """The models that predict; descriptions have a share in their positive vectors."""
        models = self.inference_models()
        if self.described is None:
            return models
        return {
            name: DescribedClassifier(model, self.described, AT_PREDICTION).eval() for name, model in models.items()
        }

    # ---------------------------------------------------------------- contrastive learning

    def make_peer(self, name: str, *parts: Any) -> Peer:
        """Build a peer with a queue of at most half of the images."""
        if not self.settings.contrast.weight:
            return super().make_peer(name, *parts)
        queue_size = max(1, min(QUEUE, len(self.images) // 2))
        seed = derive(self.runtime.seed, "projection", name)
        return ContrastingPeer(*parts, queue_size=queue_size, seed=seed, **self.peer_options)

    @property
    def contrasts(self) -> bool:
        """Whether the present epoch has a contrastive loss: in Phase II."""
        return self.phase(self.epoch) == 2 and self.settings.contrast.weight > 0

    def draw_batches(self, view: str) -> Sequence[Batch]:
        """In Phase II also images that the filter left aside, in proportion but no more than of the others."""
        if not self.contrasts:
            return super().draw_batches(view)
        index: dict[str, Tensor] = {}
        sizes: dict[str, int] = {}
        for name, peer in self.peers.items():
            weight = peer.labels.weight
            kept, aside = (torch.nonzero(mask).flatten() for mask in (weight > 0, weight == 0))
            size = min(self.images.batch_size, len(kept))
            index |= {name: kept, name + ASIDE: aside}
            sizes[name + ASIDE] = min(size, size * len(aside) // len(kept))
        key = (self.runtime.seed, self.epoch)
        return self.images.batches(f"{view} and weak", index, self.steps(2), *key, sizes=sizes)

    def losses(self, batch: Batch, name: str) -> Losses:
        """Losses of a peer on its part of a batch; in Phase II with the contrastive loss of all its images."""
        if not self.contrasts:
            return super().losses(batch, name)
        groups = [batch[group] for group in (name, name + ASIDE) if group in batch]
        whole = [part.get("batch", part["index"]) for part in groups]
        peer: Any = self.peers[name]
        losses, keys = self.losses_of_parts(name, [part for part in groups if len(part["index"])], sum(map(len, whole)))
        keys = self.runtime.world.gather_batch(keys, [len(index) for index in whole])
        peer.queue.push(keys, torch.cat(whole))
        return losses

    def losses_of_parts(self, name: str, parts: Sequence[Part], count: int) -> tuple[Losses, Tensor]:
        """Losses of a peer on parts of a batch, and the keys of their images, shape (n, dim).

        Args:
            name: The peer's.
            parts: The first has the images with labels; none where this process has no image of the batch.
            count: Images of the whole batch.
        """
        peer = cast(ContrastingPeer, self.peers[name])
        if not parts:
            return {}, torch.empty(0, DIM, device=peer.offset.device)
        with self.runtime.autocast():
            features = [peer.learner().features(part["view"][:, 0]) for part in parts]
        losses = self.label_losses(name, peer.learner(), features[0], parts[0])
        with self.runtime.autocast():
            keys = peer.keys(torch.cat([part["view"][:, 1] for part in parts]))
            index = torch.cat([part["index"] for part in parts])
            loss = peer.contrast(torch.cat(features), keys, index, count)
        return losses | {"contrast": (self.settings.contrast.weight, loss)}, keys
