"""What a method is to the engine that runs it, and what it may ask of the engine.

A method says what is trained on, and what the loss of a step is. The engine does the rest: it draws batches, makes
views, encodes images, adds up losses over micro-batches and processes, steps optimizers, and keeps checkpoints.

    method.begin()                                  once, at first: a decision
    for epoch in range(method.epochs):
        method.enter(phase)                         where a phase begins
        method.prepare(epoch)                       a decision: labels of the epoch
        for batch in batches drawn from method.streams():
            method.loss(model, batch) for each model
            method.stepped(model, ...)
        method.finish(epoch)                        a decision

A decision is made once, of all images, whatever number of processes there is; `state_dict` is what it changes, beside
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from coft.core.table import Table

from .losses import Term
from .pseudo_labels import Predictions, PseudoLabels

if TYPE_CHECKING:
    from .predictor import Predictor

Encode = Callable[[Tensor], Tensor]  # images (n, 3, size, size) to unit-length features (n, embed_dim)
Encoders = Mapping[str, Encode]


# -------------------------------------------------------------------- what a method may ask for


class Images(Protocol):
    """The unlabeled images, in an order that depends on their content alone."""

    @property
    def batch_size(self) -> int:
        """Of training, for each model."""

    def __len__(self) -> int:
        """N."""

    def steps(self, images: int) -> int:
        """Batches that so many images make, the last one perhaps not full."""

    def plain(self) -> Iterator[Tensor]:
        """Batches of all images as the test sees them. Shape (n, 3, size, size) each."""


class Clip(Protocol):
    """CLIP for the classes at hand."""

    @property
    def visual(self) -> nn.Module:
        """The image encoder, frozen."""

    @property
    def classnames(self) -> Sequence[str]:
        """C names."""

    @property
    def scale(self) -> float:
        """Logit scale."""

    def zero_shot_text(self) -> Tensor:
        """Text features of the zero-shot classifier. Unit length, shape (C, embed_dim)."""

    def member(self, number: int) -> Clip:
        """The CLIP of a model that trains: of two checkpoints every other one, by the model's number from 0."""

    def prompts(self, number: int, num_ctx: int, source: torch.Generator) -> nn.Module:
        """A positive and a negative prompt, which start from a template; another one for each number."""

    def light_module(self, name: str, source: torch.Generator) -> nn.Module:
        """The image encoder with a light module that trains."""


class Engine(Protocol):
    """What runs a method.

    Attributes:
        seed: Of everything random.
        device: Of the models.
        images: The unlabeled images.
        clip: CLIP for the classes at hand.
    """

    seed: int
    device: torch.device
    images: Images
    clip: Any  # `Clip`

    def clip_features(self, num_views: int = 1) -> Table:
        """Features of all images under the frozen CLIP, means over views. Shape (N, embed_dim)."""

    def encode(self, encoders: Callable[[], Encoders], num_views: int = 1) -> dict[str, Table]:
        """Each model's features of all images, means over views.

        Args:
            encoders: A bound method of the method at hand, which gives what encodes images, by name of the model.
            num_views: Views of an image: as the test sees it, and weak ones, which differ in each epoch.

        Returns:
            Shape (N, embed_dim) each.
        """

    def encode_some(
        self, encoders: Callable[[], Encoders], index: Mapping[str, Tensor], num_views: int = 1
    ) -> dict[str, Tensor]:
        """Each model's features of images of its own: those of `index`, by name. Shape (n, embed_dim) each, fp32."""

    def map(self, function: Callable[[str], Any], names: Sequence[str]) -> list[Any]:
        """Call a function for each name, at the same time where that is faster."""

    def autocast(self) -> torch.autocast:
        """Context in which a forward pass runs, with gradients or without them as now."""


class Observer:
    """Sees what a method does with pseudo-labels, for people to read. This one does nothing with it."""

    def seeds_chosen(self, seeds: PseudoLabels, label: Tensor, quotas: Tensor) -> None:
        """Seeds were chosen.

        Args:
            seeds: The seeds.
            label: The likeliest class of each image. Shape (N,).
            quotas: How many were wanted of each class. Shape (C,).
        """

    def seeds_filtered(self, seeds: Mapping[str, PseudoLabels]) -> None:
        """Each model's seeds were weighted.

        Args:
            seeds: With their weights.
        """

    def labelled(
        self, predictions: Mapping[str, Predictions], labels: Mapping[str, PseudoLabels], sources: Mapping[str, str]
    ) -> None:
        """All images were labelled.

        Args:
            predictions: Of each model; empty where a method has none.
            labels: What each model is trained on.
            sources: Whose predictions these labels are, by the name of who is trained on them.
        """


# -------------------------------------------------------------------- what a method says


@dataclass(frozen=True)
class Stream:
    """Images that a part of each batch of a model is drawn from.

    Attributes:
        name: Of the random numbers.
        index: Which images. Shape (n,).
        size: How many of each batch; None: the batch size.
    """

    name: str
    index: Tensor
    size: int | None = None


@dataclass
class Batch:
    """Images of a model's batch: all of them, or those of a micro-batch of a process.

    Attributes:
        views: Shape (n, 3, size, size), or (n, 2, 3, size, size) of two views.
        labels: Of these images. Shape (n,).
        whole: Labels of all images of the batch.
        position: Which images of the batch these are. Shape (n,).
        log_frequency: Of the classes in the labels that the batch is drawn from. Shape (C,).
        number: Of the batch in its epoch.
        kept: What `keep` was given.
    """

    views: Tensor
    labels: PseudoLabels
    whole: PseudoLabels
    position: Tensor
    log_frequency: Tensor
    number: int = 0
    kept: list[Tensor] = field(default_factory=list)

    def keep(self, rows: Tensor) -> None:
        """Have rows, one for each of these images, given to `Method.stepped`, for the whole batch."""
        self.kept.append(rows)


@dataclass(frozen=True)
class Tuning:
    """How the models of a phase are trained.

    Attributes:
        steps: Of the whole phase.
        rate: Full fine-tuning: learning rate of the encoders. None: what trains is light, and has the run's optimizer.
        head_rate: Full fine-tuning: learning rate of the heads over that of the encoder.
        by_epoch: Whether the run's optimizer brings its own schedule, which is stepped once an epoch.
    """

    steps: int
    rate: float | None = None
    head_rate: float = 10.0  # vectors of unit length move little
    by_epoch: bool = False


class Method:
    """Something that adapts CLIP to unlabeled images. By default, nothing trains.

    Args:
        engine: What runs it.
        observer: Sees what is done with pseudo-labels.

    Attributes:
        epochs: How many there are.
        models: What trains, by name.
        labels: What each model is trained on.
        trains: Whether it does more than to predict by zero-shot CLIP; see `guard`.
        several_phases: Whether a phase begins with a fresh optimizer.
        keeps_state: Whether checkpoints have `state_dict` beside the weights.
        in_parallel: Whether its models may make their steps at the same time.
        keeps_stages: Whether its encoders have the frozen stages of CLIP as they are.
        labelled: Batches that somebody else has drawn, in the place of those from `streams`.
        epoch: The present one, which the engine sets.
    """

    epochs = 0
    trains = True
    several_phases = False
    keeps_state = True
    in_parallel = True
    keeps_stages = True
    labelled: Any = None
    epoch = 0

    def __init__(self, engine: Engine, observer: Observer | None = None) -> None:
        self.engine, self.observer = engine, observer or Observer()
        self.models: dict[str, nn.Module] = {}
        self.labels: dict[str, PseudoLabels] = {}

    @property
    def ensemble_size(self) -> int:
        """Number of models that are averaged at prediction."""
        return max(1, len(self.models))

    # ---------------------------------------------------------------- epochs and phases

    def phase(self, epoch: int) -> int:
        """Phase of an epoch, from 1."""
        return 1

    def steps(self, phase: int) -> int:
        """Steps of an epoch of a phase."""
        return self.engine.images.steps(len(self.engine.images))

    def view(self, phase: int) -> str:
        """Views that a phase trains on: a name of `coft.images.views.VIEWS`."""
        return "strong"

    def few_views(self, phase: int) -> int:
        """How many views of an image a phase draws from; 0: each epoch has one of its own, for all models the same."""
        return 0

    def tuning(self, phase: int) -> Tuning:
        """How a phase trains."""
        raise NotImplementedError

    def student(self, name: str) -> nn.Module:
        """What trains of a model: with parts `encoder` and heads, in full fine-tuning."""
        return self.models[name]

    # ---------------------------------------------------------------- decisions

    def begin(self) -> None:
        """Decide what comes before the first epoch. A run that goes on from a checkpoint does not call it."""

    def resumed(self) -> None:
        """Decide what comes in the place of `begin` where a run goes on from a checkpoint."""

    def restarts(self, epoch: int) -> bool:
        """Whether what trains is made anew at the beginning of an epoch, within a phase. `prepare` does it."""
        return False

    def enter(self, phase: int) -> None:
        """Build what a phase trains, on every process, from the weights as they are."""

    def is_due(self, epoch: int) -> bool:
        """Whether all images are labelled anew in an epoch."""
        return False

    def prepare(self, epoch: int) -> None:
        """Decide what the models are trained on in an epoch: `labels`."""

    def finish(self, epoch: int) -> None:
        """Decide what comes after the steps of an epoch."""

    # ---------------------------------------------------------------- steps

    def streams(self) -> dict[str, list[Stream]]:
        """Of each model, from which images a batch is drawn."""
        return {name: [Stream(name, labels.counting().index)] for name, labels in self.labels.items()}

    def key(self, epoch: int) -> tuple[int | str, ...]:
        """What makes the batches of an epoch differ from those of others."""
        return self.engine.seed, epoch

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """What a step of a model minimises: the sum of these means, each times its coefficient."""
        raise NotImplementedError

    def drawn(self, batch: Any) -> Any:
        """Of each model, which images of a batch there are, as a loader gives it: a `coft.images.batches.Drawn`."""
        return batch

    def keeps(self, phase: int) -> bool:
        """Whether `loss` gives rows to `Batch.keep` in a phase."""
        return False

    def stepped(self, name: str, index: Tensor, kept: Tensor | None) -> None:
        """A model has made a step.

        Args:
            name: The model's.
            index: Images of the whole batch. Shape (n,).
            kept: What `Batch.keep` was given, for the whole batch. Shape (n, ...).
        """

    def reported(self, losses: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """What is said of a step: means of `loss` by model, under one name each."""
        return {f"{key}_{name.rpartition('_')[2]}": x for name, means in losses.items() for key, x in means.items()}

    # ---------------------------------------------------------------- the end

    def predictor(self) -> Predictor | None:
        """What it predicts with, as plain parts; None where its prediction has another form."""
        return None

    def predict(self, images: Tensor) -> Tensor:
        """Logits of images, or logs of probabilities, of a method without a predictor. Shape (n, C)."""
        raise NotImplementedError

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """All state beside the weights of `models`: tensors and plain containers."""
        return {"labels": {name: labels.state_dict() for name, labels in self.labels.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over such a state. Weights are loaded afterwards."""
        self.labels = {name: PseudoLabels.from_state(each) for name, each in state["labels"].items()}
