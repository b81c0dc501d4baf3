"""What a method is to those who run it, and what it needs of them.

A trainer of Dassl, or any loop, runs a method so:

    method.begin()
    for epoch in range(method.epochs):
        for batch in method.begin_epoch(epoch):
            losses = method.step(batch)
        method.end_epoch(epoch)
    log_probabilities = method.predict(images)

and saves and loads the state of each of its `models` and `optimizers` between two epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from coft.core.tables import Allocate, in_memory
from coft.core.world import ALONE, World
from coft.labelling.pseudo_labels import Predictions, PseudoLabels

if TYPE_CHECKING:
    from coft.labelling.predictor import Predictor

# "index", shape (n,), and "view", shape (n, 3, size, size). Of several processes each has a part of the batch, perhaps
# none of it, and "batch", the index of all its images.
Part = Mapping[str, Tensor]
Batch = Mapping[str, Part]  # of each model, by name
MOST_NUMBERS = 4  # that a step reports of a model


class Images(Protocol):
    """The unlabeled images, in an order that depends on their content alone."""

    @property
    def digest(self) -> str:
        """One hash of all contents, to know the images by."""

    @property
    def batch_size(self) -> int:
        """Of training, for each model."""

    def __len__(self) -> int:
        """N."""

    def batches(
        self,
        view: str,
        index: Mapping[str, Tensor],
        steps: int,
        *key: int | str,
        sizes: Mapping[str, int] | None = None,
    ) -> Sequence[Batch]:
        """Batches for several models at once, each from its own images, in its own order, with its own views.

        Args:
            view: "weak", "strong", or two of them for two views of each image, "strong and weak".
            index: For each model's name, its images.
            steps: Number of batches. A model whose images run out begins again, in another order.
            *key: What makes these batches differ from others: seed, epoch.
            sizes: How many images of a batch a name gets, where that is not the batch size. 0: none.
        """

    def steps(self, images: int) -> int:
        """Batches that so many images make, the last one perhaps not full."""

    def plain(self, index: Tensor | None = None, num_views: int = 1, key: Sequence[int | str] = ()) -> Iterable[Tensor]:
        """Batches of images as the test sees them, or in several views.

        Args:
            index: Which images, in which order; all without it.
            num_views: With more than one, each image comes as the test sees it and in so many less one weak views.
            key: What makes the weak views differ from others.

        Returns:
            Shape (n, 3, size, size), or (n, num_views, 3, size, size).
        """


class Backbone(Protocol):
    """CLIP for the classes at hand."""

    @property
    def visual(self) -> nn.Module:
        """The image encoder, frozen."""

    @property
    def classnames(self) -> Sequence[str]:
        """C names."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What a checkpoint must share with this run to be loaded."""

    @property
    def scale(self) -> float:
        """Logit scale."""

    def zero_shot_text(self) -> Tensor:
        """Text features of the zero-shot classifier. Unit length, shape (C, embed_dim)."""

    def image_features(self, images: Images, num_views: int = 1, key: Sequence[int | str] = ()) -> Tensor:
        """Image features of the frozen CLIP. Shape (N, embed_dim)."""

    def prompts(self, number: int, num_ctx: int, source: torch.Generator) -> nn.Module:
        """A positive and a negative prompt, which start from a template; another one for each number."""

    def light_module(self, name: str, source: torch.Generator) -> nn.Module:
        """The image encoder with a light module that trains."""


@dataclass
class Runtime:
    """Where and how a method computes.

    Attributes:
        seed: Of everything random.
        device: Of the models.
        dtype: Of the forward pass; None is fp32.
        predicts_in_bf16: Whether predictions, outside of steps, run in bf16 instead.
        scaler: Gradient scaler of fp16 training on a GPU.
        micro_batch: See `Classifier`.
        compiler: Backend of torch.compile for encoders that train in full; "" for none.
        allocate: Makes tables of all images.
        timed: Context that counts the seconds of a part of the work.
        parallel: Whether steps of several models may run at the same time.
        guard: Whether nothing is trained where CLIP hardly knows the classes.
        world: The processes of the run.
    """

    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype | None = None
    predicts_in_bf16: bool = False
    scaler: Any = None
    micro_batch: int = 0
    compiler: str = ""
    allocate: Allocate = in_memory
    timed: Callable[[str], AbstractContextManager[Any]] = nullcontext
    parallel: bool = True
    guard: bool = False
    world: World = ALONE

    def __post_init__(self) -> None:
        """Of several processes, the exchanges of a step must come in one order on all of them."""
        self.parallel = self.parallel and self.world.alone

    def autocast(self) -> torch.autocast:
        """Context in which a forward pass runs, with gradients or without them as now."""
        dtype = torch.bfloat16 if self.predicts_in_bf16 and not torch.is_grad_enabled() else self.dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def run_in_turn(self) -> None:
        """Make steps of several models one after the other from now on."""
        self.parallel = False

    def descend(self, loss: Tensor | None, optimizer: Any, name: str, numbers: Sequence[Tensor] = ()) -> list[float]:
        """Make one step of an optimizer.

        Args:
            loss: Of several processes, this one's part of it; None where it has no image of the batch.
            optimizer: Of what trains.
            name: Of the model.
            numbers: To be reported: losses, or this process's part of them, as many as MOST_NUMBERS.

        Returns:
            The numbers, of the whole batch.

        Raises:
            FloatingPointError: If the loss is not finite.
        """
        value = 0.0 if loss is None else float(loss.detach())
        if self.world.alone and not math.isfinite(value):
            raise FloatingPointError(f"{name}: the loss is {value}")
        optimizer.zero_grad()
        if loss is not None:
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        found = self._of_all(optimizer, name, value, [number.item() for number in numbers])
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
        return found

    def _of_all(self, optimizer: Any, name: str, loss: float, numbers: list[float]) -> list[float]:
        """Add up gradients and numbers over all processes; a loss that is not finite ends them all."""
        if self.world.alone:
            return numbers
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        padded = [*numbers, *[0.0] * (MOST_NUMBERS - len(numbers))]
        total, *found = self.world.add_gradients(parameters, [loss, *padded])
        if not math.isfinite(total):
            losses = self.world.gather(torch.tensor([loss])).tolist()
            wrong = {rank: value for rank, value in enumerate(losses) if not math.isfinite(value)}
            ranks = ", ".join(f"{value} on rank {rank}" for rank, value in wrong.items())
            raise FloatingPointError(f"{name}: the loss is {ranks or total}")
        return found


class Observer:
    """Sees what a method does with pseudo-labels, for people to read. This one does nothing with it.

    Of several processes each has one, and all see the same, but for tables: these are each process's own rows.
    """

    def seeds_chosen(self, seeds: PseudoLabels, logits: Tensor, quotas: Tensor) -> None:
        """Seeds were chosen by logits of all images, shape (N, C); `quotas` were wanted of each class, shape (C,)."""

    def seeds_filtered(self, seeds: Mapping[str, PseudoLabels], separation: Sequence[float]) -> None:
        """Each model's seeds were weighted.

        Args:
            seeds: With their weights.
            separation: AUC of the partner's d for each model's seeds; none as long as these are not filtered.
        """

    def labelled(self, predictions: Mapping[str, Predictions], labels: Mapping[str, PseudoLabels]) -> None:
        """All images were labelled.

        Args:
            predictions: Of each model; empty where a method has none.
            labels: What each model is trained on.
        """


class Method:
    """Something that adapts CLIP to unlabeled images. By default, nothing trains.

    Attributes:
        epochs: How many there are.
        models: What a checkpoint holds, by name.
        optimizers: Of the models that train, by name.
        schedulers: Likewise.
    """

    epochs = 0

    def __init__(self) -> None:
        self.models: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Any] = {}
        self.schedulers: dict[str, Any] = {}

    @property
    def trains(self) -> bool:
        """Whether it does more than to keep zero-shot CLIP; see `guard`."""
        return True

    @property
    def ensemble_size(self) -> int:
        """Number of models that are averaged at prediction."""
        return max(1, len(self.models))

    def phase(self, epoch: int) -> int:
        """Phase of an epoch, from 1."""
        return 1

    def begin(self) -> None:
        """Do what comes before the first epoch. A run that goes on from a checkpoint does not call it."""

    def begin_epoch(self, epoch: int) -> Sequence[Any]:
        """Do what comes before the steps of an epoch.

        Returns:
            Its batches.
        """
        return ()

    def step(self, batch: Any) -> dict[str, float]:
        """Train on a batch.

        Returns:
            Losses by name.
        """
        raise NotImplementedError

    def end_epoch(self, epoch: int) -> None:
        """Do what comes after the steps of an epoch."""

    def loaded(self) -> None:
        """Weights were loaded from a checkpoint."""

    def predict(self, images: Tensor) -> Tensor:
        """Logits of images, or logs of probabilities. Shape (n, C)."""
        raise NotImplementedError

    def predictor(self) -> Predictor | None:
        """What a finished method predicts with, as plain parts; None where its prediction has another form."""
        return None

    def predict_each(self, images: Tensor) -> dict[str, Tensor]:
        """Probabilities by each of several models. Shape (n, C) each."""
        return {}
