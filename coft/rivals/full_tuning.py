"""Full fine-tuning of image encoders: common base of self-training, MUST, DPA, LaFTer and full supervision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coft.core.precision import precision_setting
from coft.core.settings import setting, share
from coft.core.table import Table
from coft.labelling.classifier import Classifier, interpolate
from coft.labelling.first_labels import likeliest
from coft.labelling.losses import Term, adjusted_cross_entropy
from coft.labelling.predictor import Predictor, final_classifier
from coft.labelling.prior import correct_prior
from coft.labelling.protocol import Batch, Clip, Encoders, Engine, Method, Observer, Tuning
from coft.labelling.pseudo_labels import PseudoLabels
from coft.labelling.student import Student, trainable_copy

from .coft_labels import coft_phase1_steps


@dataclass(frozen=True)
class TuningSettings:
    """Settings of full fine-tuning, with the defaults of CoFT's Phase II."""

    prec: str = precision_setting()
    epochs: int = setting(10, "epochs", at_least=1)
    lr: float = setting(1e-5, "learning rate of the image encoder; the head has ten times as much", at_least=0.0)
    ema: float = share(0.99, "decay of the EMA weights, which label images and are evaluated")
    wise: float = share(0.5, "share of the fine-tuned weights in the evaluated weights (WiSE-FT)")
    ensemble: int = setting(2, "models trained independently, whose probabilities are averaged", at_least=1)


@dataclass(frozen=True)
class EqualStepsSettings:
    """Settings of rivals that can have as many steps as CoFT."""

    equal_steps: bool = setting(False, "train CoFT's steps of Phase I, too, by its defaults, in whole epochs")


@dataclass(frozen=True)
class SupervisedSettings(TuningSettings):
    """Settings of full supervision."""

    wise: float = share(1.0, "share of the fine-tuned weights in the evaluated weights (WiSE-FT)")


class FullTuning(Method):
    """Independent, fully trainable students, each an image encoder with a head that starts from text features.

    Subclasses define the labels in `label`. The models are `model_1`, `model_2` ...; they start equal and differ in
    their batches.

    Args:
        engine: The engine that runs the method.
        settings: Settings of full fine-tuning.
        observer: Callbacks on pseudo-labels.
    """

    random_key = "FULLTUNING"
    head_rate = 10.0
    settings: Any

    def __init__(self, engine: Engine, settings: Any, observer: Observer | None = None) -> None:
        super().__init__(engine, observer)
        self.settings, self.epochs = settings, settings.epochs
        self.names = [f"model_{number}" for number in range(1, settings.ensemble + 1)]
        self.starts = {name: self.first_classifier(name) for name in self.names}
        self.students = {name: self.make_student(name).to(engine.device) for name in self.names}
        self.models = dict(self.students)
        if getattr(settings, "equal_steps", False):
            more = coft_phase1_steps(engine.images, len(engine.clip.classnames))
            self.epochs += -(-more // self.steps(1))

    # ---------------------------------------------------------------- what differs

    def label(self) -> Mapping[str, PseudoLabels]:
        """Return labels of all images for each model."""
        raise NotImplementedError

    def first_head(self, name: str) -> Tensor:
        """Return a model's initial head: text features of all templates. Unit length, shape (C, embed_dim)."""
        return self.clip_of(name).zero_shot_text()

    def first_encoder(self, name: str) -> nn.Module:
        """Return a model's initial image encoder."""
        return self.clip_of(name).visual

    def clip_of(self, name: str) -> Clip:
        """Return the CLIP that a model is built from; with two checkpoints, models alternate."""
        return self.engine.clip.member(self.names.index(name))

    # ---------------------------------------------------------------- models

    def first_classifier(self, name: str) -> Classifier:
        """Build the classifier from which a model starts, and with which it is averaged at the end."""
        return Classifier(self.first_encoder(name), self.first_head(name), None, self.clip_of(name).scale)

    def make_student(self, name: str) -> Student:
        """Build a model."""
        start = self.starts[name]
        head = nn.Parameter(start.positive.detach().clone())
        return Student(Classifier(trainable_copy(start.encoder), head, None, start.scale), self.settings.ema)

    def student(self, name: str) -> nn.Module:
        """Return the part of a model that trains."""
        return self.students[name].model

    def encoders(self) -> Encoders:
        """Return the encoders that label images: the moving averages."""
        return {name: student.teacher.features for name, student in self.students.items()}

    # ---------------------------------------------------------------- labels

    def prepare(self, epoch: int) -> None:
        """Label all images, every `refresh` epochs or once."""
        if epoch % (getattr(self.settings, "refresh", 0) or self.epochs) == 0:
            self.labels = dict(self.label())

    def own_labels(self, tau: float, num_views: int = 1) -> Mapping[str, PseudoLabels]:
        """Label all images with each model's moving average.

        Args:
            tau: Strength of the prior correction.
            num_views: Number of views of an image over which features are averaged.
        """
        return self.labels_by(self.engine.encode(self.encoders, num_views), tau)

    def labels_by(self, features: Mapping[str, Table], tau: float) -> Mapping[str, PseudoLabels]:
        """Label all images by the heads of the moving averages, on given features. Shape (N, embed_dim) each."""
        labels = {}
        for name, rows in features.items():
            logits = final_classifier(self.students[name].teacher).logits(rows)
            labels[name] = PseudoLabels.of_pool(likeliest(correct_prior(logits, tau)))
        self.observer.labelled({}, labels, {name: name for name in labels})
        return labels

    # ---------------------------------------------------------------- a step

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """Compute cross-entropy with logits adjusted by the labels' class frequencies."""
        logits, _ = self.students[name].model(batch.views)
        return {"loss": adjusted_cross_entropy(logits, batch.labels, batch.whole, batch.log_frequency)}

    def after_step(self, name: str, index: Tensor, kept: Tensor | None) -> None:
        """Update a model's moving average."""
        self.students[name].update()

    def key(self, epoch: int) -> tuple[int | str, ...]:
        """Return the key of an epoch's random numbers, which differs between epochs and trainers."""
        return self.engine.seed, self.random_key, epoch

    def tuning(self, phase: int) -> Tuning:
        """Return the tuning of encoders and heads."""
        return Tuning(self.steps(phase) * self.epochs, self.settings.lr, self.head_rate)

    # ---------------------------------------------------------------- the end

    @torch.no_grad()
    def predictor(self) -> Predictor:
        """Return the predictor: the moving averages, averaged with the initial classifiers (WiSE-FT)."""
        wise, models = self.settings.wise, {name: student.teacher for name, student in self.students.items()}
        if wise < 1:
            starts = {name: start.to(self.engine.device) for name, start in self.starts.items()}
            models = {name: interpolate(starts[name], end, wise, ["positive"]) for name, end in models.items()}
        return Predictor({name: final_classifier(model) for name, model in models.items()})


class Supervised(FullTuning):
    """Models trained on ground-truth labels, as an upper bound of label-free methods.

    Args:
        truth: Ground-truth label of each image. Shape (N,).
        *args: Arguments of `FullTuning`.
    """

    random_key = "SUPERVISED"

    def __init__(self, truth: Tensor, *args: Any) -> None:
        self.truth = truth
        super().__init__(*args)

    def label(self) -> Mapping[str, PseudoLabels]:
        """Return the ground-truth labels."""
        return dict.fromkeys(self.models, PseudoLabels.of_pool(self.truth))
