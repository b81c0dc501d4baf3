"""The interface between a method and the engine that runs it.

A method decides what the models are trained on, and defines the loss of a step. The engine does the rest: it draws
batches, makes views, encodes images, adds up losses over micro-batches and processes, steps optimizers, and keeps
checkpoints.

    method.begin()                                  once, at the start: a decision
    for epoch in range(method.epochs):
        method.enter(phase)                         at the beginning of a phase
        method.prepare(epoch)                       a decision: labels of the epoch
        for batch in batches drawn from method.streams():
            method.loss(model, batch) for each model, perhaps at the same time
            method.after_step(model, ...) for each model
        method.finish(epoch)                        a decision

A decision is made once for all images, by the main process, however many processes there are. It may change weights
and what is in `state_dict`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


# -------------------------------------------------------------------- what a method may use


class Images(Protocol):
    """The unlabeled images, in an order that depends on their content alone."""

    @property
    def batch_size(self) -> int:
        """Training batch size of each model."""

    def __len__(self) -> int:
        """Return the number of images, N."""

    def steps(self, images: int) -> int:
        """Return the number of batches in a pass over `images` images; the last one may not be full."""


class Clip(Protocol):
    """CLIP with the class names of the run."""

    @property
    def visual(self) -> nn.Module:
        """Frozen image encoder."""

    @property
    def classnames(self) -> Sequence[str]:
        """Class names, C of them."""

    @property
    def scale(self) -> float:
        """Logit scale."""

    def zero_shot_text(self) -> Tensor:
        """Return text features of the zero-shot classifier. Unit length, shape (C, embed_dim)."""

    def member(self, number: int) -> Clip:
        """Return the CLIP that model `number` (from 0) is built from; with two checkpoints, models alternate."""

    def prompts(self, number: int, num_ctx: int, source: torch.Generator) -> nn.Module:
        """Build a positive and a negative prompt that start from a template, a different one for each model number."""

    def light_module(self, name: str, source: torch.Generator) -> nn.Module:
        """Build the image encoder with a trainable light module."""


class Engine(Protocol):
    """The engine, which runs a method.

    Attributes:
        seed: Random seed of the run.
        device: Device of the models.
        images: The unlabeled images.
        clip: CLIP with the class names of the run.
    """

    seed: int
    device: torch.device
    images: Images
    clip: Any  # `Clip`

    def clip_features(self, num_views: int = 1) -> Table:
        """Return the frozen CLIP's features of all images, averaged over views. Shape (N, embed_dim)."""

    def encode(self, encoders: Callable[[], Encoders], num_views: int = 1) -> dict[str, Table]:
        """Return each model's features of all images, averaged over views.

        Args:
            encoders: Bound method of the running `Method` that returns encoders by model name.
            num_views: Number of views of an image: the test view, and weak views, which differ in each epoch.

        Returns:
            Features by model name. Shape (N, embed_dim) each.
        """

    def encode_some(self, encoders: Callable[[], Encoders], index: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each model's features of the images in its own `index`. Shape (n, embed_dim) each, fp32."""

    def map(self, function: Callable[[str], Any], names: Sequence[str]) -> list[Any]:
        """Call a function for each name, concurrently where that is faster."""

    def autocast(self) -> torch.autocast:
        """Return the autocast context of a forward pass, which leaves gradient mode as it is."""


class Observer:
    """Callbacks on a method's pseudo-labels, for logs and reports. Those of this base class do nothing."""

    def seeds_chosen(self, seeds: PseudoLabels, label: Tensor, quotas: Tensor) -> None:
        """Called after the seeds are chosen.

        Args:
            seeds: The seeds.
            label: Likeliest class of each image. Shape (N,).
            quotas: Number of seeds wanted of each class. Shape (C,).
        """

    def seeds_filtered(self, seeds: Mapping[str, PseudoLabels]) -> None:
        """Called after each model's seeds are weighted.

        Args:
            seeds: Weighted seeds by model name.
        """

    def labelled(
        self, predictions: Mapping[str, Predictions], labels: Mapping[str, PseudoLabels], sources: Mapping[str, str]
    ) -> None:
        """Called after all images are labelled.

        Args:
            predictions: Predictions of each model; empty if the method has none.
            labels: Pseudo-labels that each model is trained on.
            sources: Name of the model that predicted the labels, by name of the model that is trained on them.
        """


# -------------------------------------------------------------------- what a method defines


@dataclass(frozen=True)
class Stream:
    """Images from which part of each batch of a model is drawn.

    Attributes:
        name: Name that seeds the random numbers.
        index: Indices of the images. Shape (n,).
        size: Number of images drawn for each batch; None for the batch size.
    """

    name: str
    index: Tensor
    size: int | None = None


@dataclass
class Batch:
    """A model's batch, or the part of it in one micro-batch of one process.

    Attributes:
        views: Views of the images. Shape (n, 3, size, size), or (n, 2, 3, size, size) with two views.
        labels: Pseudo-labels of these images. Shape (n,).
        whole: Pseudo-labels of all images of the whole batch.
        position: Positions of these images in the whole batch. Shape (n,).
        log_frequency: Log class frequencies of the labels that the batch is drawn from. Shape (C,).
        number: Number of the batch in its epoch.
        mean_prediction: Mean of `Method.probability` over the whole batch, without gradients, if the batch is processed
            in parts and the method balances its predictions; else None. Shape (C,).
        kept: Rows passed to `keep`.
    """

    views: Tensor
    labels: PseudoLabels
    whole: PseudoLabels
    position: Tensor
    log_frequency: Tensor
    number: int = 0
    mean_prediction: Tensor | None = None
    kept: list[Tensor] = field(default_factory=list)

    def keep(self, rows: Tensor) -> None:
        """Keep one row per image for `Method.after_step`, which receives the rows of the whole batch."""
        self.kept.append(rows)


@dataclass(frozen=True)
class Tuning:
    """How the models of a phase are trained.

    Attributes:
        steps: Number of steps in the whole phase.
        rate: Learning rate of the encoders in full fine-tuning. None for light modules, which use the run's optimizer.
        head_rate: Learning rate of the heads in full fine-tuning, as a multiple of the encoder's.
        by_epoch: Whether the run's optimizer has its own schedule, which is stepped once per epoch.
    """

    steps: int
    rate: float | None = None
    head_rate: float = 10.0  # vectors of unit length move little
    by_epoch: bool = False


class Method:
    """Base class of methods that adapt CLIP to unlabeled images. By default, nothing trains.

    Args:
        engine: The engine that runs the method.
        observer: Callbacks on pseudo-labels.

    Attributes:
        epochs: Number of epochs.
        models: Trainable models by name.
        labels: Pseudo-labels of the last labelling that each model is trained on, by name. A loss may renew them.
        trains: Whether anything is trained; False if zero-shot CLIP predicts, see `guard`.
        new_optimizer_per_phase: Whether each phase begins with a fresh optimizer.
        saves_state: Whether checkpoints contain `state_dict` besides the weights.
        in_parallel: Whether the models may make their steps concurrently.
        labelled: Batches from another source, which replace those drawn from `streams`.
        epoch: Current epoch, set by the engine.
    """

    epochs = 0
    trains = True
    new_optimizer_per_phase = False
    saves_state = True
    in_parallel = True
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
        """Return the phase of an epoch, from 1."""
        return 1

    def steps(self, phase: int) -> int:
        """Return the number of steps in an epoch of a phase."""
        return self.engine.images.steps(len(self.engine.images))

    def views(self, phase: int) -> Sequence[str]:
        """Return the kinds of views of an image that a phase trains on: keys of `coft.images.views.VIEWS`."""
        return ["strong"]

    def num_fixed_views(self, phase: int) -> int:
        """Return how many views of an image a phase draws from; 0: new ones in each epoch, the same for all models."""
        return 0

    def tuning(self, phase: int) -> Tuning:
        """Return how the models of a phase are trained."""
        raise NotImplementedError

    def student(self, name: str) -> nn.Module:
        """Return the part of a model that trains; in full fine-tuning it has an `encoder` and heads."""
        return self.models[name]

    # ---------------------------------------------------------------- decisions

    def begin(self) -> None:
        """Make the decisions before the first epoch. Not called if a run is resumed from a checkpoint."""

    def resumed(self) -> None:
        """Make the decisions that replace `begin` if a run is resumed from a checkpoint."""

    def restarts(self, epoch: int) -> bool:
        """Return whether an epoch within a phase begins with re-initialised modules. `prepare` re-initialises them."""
        return False

    def enter(self, phase: int) -> None:
        """Build the modules that a phase trains from the current weights, on every process."""

    def is_due(self, epoch: int) -> bool:
        """Return whether all images are relabelled in an epoch."""
        return False

    def prepare(self, epoch: int) -> None:
        """Decide the `labels` that the models are trained on in an epoch."""

    def finish(self, epoch: int) -> None:
        """Make the decisions after the last step of an epoch."""

    # ---------------------------------------------------------------- steps

    def streams(self) -> dict[str, list[Stream]]:
        """Return the images from which each model's batches are drawn, by model name."""
        return {name: [Stream(name, labels.nonzero().index)] for name, labels in self.labels.items()}

    def key(self, epoch: int) -> tuple[int | str, ...]:
        """Return the key of an epoch's random numbers, which makes its batches differ from those of others."""
        return self.engine.seed, epoch

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """Compute the terms of a model's loss, which is the sum of their means, each times its coefficient."""
        raise NotImplementedError

    def drawn(self, batch: Any) -> Any:
        """Convert a batch from the loader to a `coft.images.batches.DrawnBatch` for each model, by name."""
        return batch

    def balances(self, phase: int) -> bool:
        """Return whether the loss of a phase balances the predicted classes of the whole batch."""
        return False

    def probability(self, name: str, batch: Batch) -> Tensor:
        """Return the probabilities that a model predicts, for a loss that balances them. Shape (n, C)."""
        raise NotImplementedError

    def keeps_rows(self, phase: int) -> bool:
        """Return whether `loss` passes rows to `Batch.keep` in a phase."""
        return False

    def after_step(self, name: str, index: Tensor, kept: Tensor | None) -> None:
        """Update a model's state, after the steps of all models.

        Args:
            name: Name of the model.
            index: Indices of the images of the whole batch. Shape (n,).
            kept: Rows passed to `Batch.keep`, for the whole batch. Shape (n, ...).
        """

    def metrics(self, losses: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Return the values logged for a step: the means of `loss` of each model, such as `loss_a` of `peer_a`."""
        return {f"{key}_{name.rpartition('_')[2]}": x for name, means in losses.items() for key, x in means.items()}

    # ---------------------------------------------------------------- the end

    def predictor(self) -> Predictor | None:
        """Return the predictor of the current weights; None if the method implements `predict` instead."""
        return None

    def predict(self, images: Tensor) -> Tensor:
        """Return logits or log-probabilities of images, for a method without a predictor. Shape (n, C)."""
        raise NotImplementedError

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Return all state besides the weights of `models`, as tensors and plain containers."""
        return {"labels": {name: labels.state_dict() for name, labels in self.labels.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`. Weights are loaded afterwards."""
        self.labels = {name: PseudoLabels.from_state(each) for name, each in state["labels"].items()}
