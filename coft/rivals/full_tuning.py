"""Full fine-tuning of image encoders on given labels: what self-training, LaFTer and full supervision share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coft.core.parallel import Parallel
from coft.core.settings import setting, share
from coft.labelling.classifier import Classifier
from coft.labelling.losses import adjusted_cross_entropy, average_predictions
from coft.labelling.predictor import Predictor, finished
from coft.labelling.pseudo_labels import PseudoLabels, correct_prior_
from coft.method.coft_settings import PRECISIONS
from coft.method.labeller import Labeller
from coft.method.optimizers import HEAD_RATE, full_optimizer
from coft.method.peer import Peer
from coft.method.protocol import Backbone, Batch, Images, Method, Observer, Runtime


@dataclass(frozen=True)
class TuningSettings:
    """Settings of full fine-tuning; defaults are those of CoFT's Phase II."""

    prec: str = setting(
        "fp32",
        "precision of the forward pass; bf16-predict: steps in fp32, predictions in bf16; auto: what is faster",
        choices=PRECISIONS,
    )
    epochs: int = setting(10, "epochs", at_least=1)
    lr: float = setting(1e-5, "learning rate of the image encoder; the head has ten times as much", at_least=0.0)
    ema: float = share(0.99, "decay of the moving average that labels and is tested")
    wise: float = share(0.5, "share of what was trained in the weights that are tested (WiSE-FT)")
    ensemble: int = setting(2, "models trained independently, whose probabilities are averaged", at_least=1)


@dataclass(frozen=True)
class SupervisedSettings(TuningSettings):
    """Settings of full supervision."""

    wise: float = share(1.0, "share of what was trained in the weights that are tested (WiSE-FT)")


class FixedText(nn.Module):
    """Text features in the place of prompts; the negative ones are the same.

    Args:
        features: Shape (C, embed_dim).
    """

    features: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("features", features, persistent=False)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the features twice, shape (C, embed_dim)."""
        return self.features, self.features


class FullTuning(Method):
    """Independent models, each an image encoder with a head of text features, all of whose weights train.

    What they are trained on is the business of subclasses: `label`. The models are `model_1`, `model_2` ...; they
    start alike and differ in their batches and views.

    Args:
        images: The images.
        backbone: CLIP for the classes at hand.
        settings: See `TuningSettings`.
        runtime: Where and how to compute.
        observer: Sees the pseudo-labels.
    """

    key = "FULLTUNING"  # of random numbers
    head_rate: float = HEAD_RATE
    settings: Any

    def __init__(
        self,
        images: Images,
        backbone: Backbone,
        settings: TuningSettings,
        runtime: Runtime,
        observer: Observer | None = None,
    ) -> None:
        super().__init__()
        self.images, self.backbone, self.settings, self.runtime = images, backbone, settings, runtime
        self.observer = observer or Observer()
        self.epochs, self.num_classes, self.epoch = settings.epochs, len(backbone.classnames), 0
        names = [f"model_{number}" for number in range(1, settings.ensemble + 1)]
        self.peers = {name: self.make_model(name) for name in names}
        self.models = dict(self.peers)
        for name, peer in self.peers.items():
            steps = images.steps(len(images)) * self.epochs
            built = full_optimizer(peer.learner(), settings.lr, steps, self.head_rate)
            self.optimizers[name], self.schedulers[name] = built
        self.parallel = Parallel(len(names), backbone.visual, runtime.device.type)
        self.labeller = Labeller(images, runtime, self.parallel)
        self.tested: list[Classifier] = []

    # ---------------------------------------------------------------- what differs

    def label(self) -> Mapping[str, PseudoLabels]:
        """Labels of all images for each model."""
        raise NotImplementedError

    def own_labels(self, tau: float, num_views: int = 1) -> Mapping[str, PseudoLabels]:
        """Each model's own labels of all images, with its moving average.

        Args:
            tau: Strength of the correction against rarely predicted classes.
            num_views: Views of an image that a label is the mean of.
        """
        labels, teachers = {}, {name: peer.teacher() for name, peer in self.peers.items()}
        for name, (logits, _) in self.labeller.score(teachers, num_views, self.epoch).items():
            found = correct_prior_(logits, tau, self.runtime.world).argmax(dim=1)
            labels[name] = PseudoLabels.of_pool(self.runtime.world.gather(found))
        self.observer.labelled({}, labels)
        return labels

    def first_head(self, name: str) -> Tensor:
        """Text features that a model starts with: the averaged templates'. Unit length, shape (C, embed_dim)."""
        return self.backbone.zero_shot_text()

    def first_encoder(self, name: str) -> nn.Module:
        """Image encoder that a model starts with."""
        return self.backbone.visual

    def make_model(self, name: str) -> Peer:
        """Build a model: a peer in its second phase, without prompts."""
        text = FixedText(self.first_head(name))
        peer = Peer(
            text,
            self.first_encoder(name),
            self.backbone.scale,
            self.backbone.identity,
            ema_decay=self.settings.ema,
            micro_batch=self.runtime.micro_batch,
            compiler=self.runtime.compiler,
        )
        peer.to(self.runtime.device).enter_phase2()
        return peer

    # ---------------------------------------------------------------- the protocol

    def begin_epoch(self, epoch: int) -> Sequence[Batch]:
        """Label all images when it is due, and draw the batches."""
        self.epoch, self.tested = epoch, []
        if epoch % (getattr(self.settings, "refresh", 0) or self.epochs) == 0:
            for peer in self.peers.values():
                peer.eval()
            for name, labels in self.label().items():
                self.peers[name].take_labels(labels)
        self.labels = {name: peer.labels.weighted() for name, peer in self.peers.items()}
        self.frequency = {name: labels.log_frequency(self.num_classes) for name, labels in self.labels.items()}
        index = {name: labels.index for name, labels in self.labels.items()}
        steps = self.images.steps(len(self.images))
        return self.images.batches("strong", index, steps, self.runtime.seed, self.key, epoch)

    def step(self, batch: Batch) -> dict[str, float]:
        """Make one step of each model."""
        together = self.runtime.parallel and not self.runtime.compiler
        losses = self.parallel.map(partial(self.step_of, batch), list(batch), together)
        return dict(zip((name.replace("model", "loss") for name in batch), losses, strict=True))

    def step_of(self, batch: Batch, name: str) -> float:
        """Make one step of a model: cross-entropy with logits adjusted by the labels' frequencies.

        Returns:
            Its loss.
        """
        part, labels, loss = batch[name], self.labels[name], None
        if len(part["index"]):
            with self.runtime.autocast():
                logits, _ = self.peers[name].learner()(part["view"].to(self.runtime.device))
            everything = labels.of(part["batch"]) if "batch" in part else None
            loss = adjusted_cross_entropy(logits, labels.of(part["index"]), self.frequency[name], everything)
        numbers = self.runtime.descend(loss, self.optimizers[name], name, [] if loss is None else [loss])
        self.peers[name].update_ema()
        self.schedulers[name].step()
        return numbers[0]

    def end_epoch(self, epoch: int) -> None:
        """Weights have changed: the models that are tested have to be made again."""
        self.tested = []

    def loaded(self) -> None:
        """Likewise."""
        self.tested = []

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Log of the mean of the models' probabilities. Shape (n, C)."""
        self.tested = self.tested or [peer.inference_model(self.settings.wise).eval() for peer in self.peers.values()]
        with self.runtime.autocast():
            return average_predictions([model(images)[0].float() for model in self.tested])

    def predictor(self) -> Predictor:
        """What it predicts with, as plain parts."""
        models = {name: peer.inference_model(self.settings.wise).eval() for name, peer in self.peers.items()}
        return Predictor({name: finished(model, with_clean=False) for name, model in models.items()})


class Supervised(FullTuning):
    """Models trained on right labels: what a label-free method can hope for at best.

    Args:
        truth: Label of each image; a negative one is unknown, and its image is left out. Shape (N,).
        *args: As of `FullTuning`.
    """

    key = "SUPERVISED"

    def __init__(self, truth: Tensor, *args: Any) -> None:
        self.truth = truth
        super().__init__(*args)

    def label(self) -> Mapping[str, PseudoLabels]:
        """The right labels."""
        return dict.fromkeys(self.peers, PseudoLabels.of_pool(self.truth, self.truth >= 0))
