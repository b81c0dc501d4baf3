"""The engine, which executes a method: batches, forward and backward passes, optimizer steps, predictions.

It also splits batches into micro-batches and distributes the work over processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coft.backbones.backbone import ClassBackbone
from coft.backbones.frozen_bank import COLOURS, FrozenBank
from coft.core.parallel import Parallel
from coft.core.table import Table
from coft.images.batches import DrawnBatch, Source, UnlabeledImages
from coft.inference.encoders import encode_images
from coft.labelling.predictor import Predictor
from coft.labelling.protocol import Batch, Encoders, Method

from .optimizers import Built, MakeOptimizer, PhasedOptimizer, PhasedScheduler, build, check_restored, light_optimizer
from .pool import PoolEncoder
from .runtime import Runtime, with_smaller_batches

MAX_LOSS_VALUES = 4  # upper bound of the loss values that a step reports per model
Losses = dict[str, float]


class Engine:
    """Executor of a method.

    Args:
        images: Unlabeled images; None if the method uses none.
        clip: Frozen CLIP with the class names of the run.
        runtime: Device, precision, parallelism and processes of the run.
        make_light: Factory for the optimizer of prompts and light modules, whose schedule is a cosine over the steps.
        make_by_epoch: Factory for optimizer and schedule of a model whose schedule is stepped once per epoch.

    Attributes:
        method: The attached method.
        optimizers: Optimizers by model name.
        schedulers: Learning rate schedules by model name.
    """

    method: Method

    def __init__(
        self,
        images: UnlabeledImages | None,
        clip: ClassBackbone,
        runtime: Runtime,
        make_light: MakeOptimizer = light_optimizer,
        make_by_epoch: Callable[[nn.Module], Built] | None = None,
    ) -> None:
        self.images: Any = images  # None if the method uses none
        self.clip, self.runtime, self.world = clip, runtime, runtime.world
        self.seed, self.device = runtime.seed, runtime.device
        self.make_light, self.make_by_epoch = make_light, make_by_epoch
        self.optimizers: dict[str, Any] = {}
        self.schedulers: dict[str, Any] = {}
        self.phase = 1
        self._predictor: Predictor | None = None
        self.bank: FrozenBank | None = None

    def attach(self, method: Method) -> None:
        """Set the method to run, and build its optimizers."""
        self.method = method
        count = len(method.models) if method.in_parallel else 1
        self.parallel = Parallel(max(1, count), self.clip.visual, self.device.type)
        if self.runtime.keeps_stages:
            self.bank = FrozenBank(self.clip.visual, self.parallel.map_without_gradients)
        self.pool = PoolEncoder(self.images, self.clip, self.runtime, method, self.parallel, self.through_stages)
        if not method.epochs:
            return
        for name in method.models:
            if method.new_optimizer_per_phase:
                self.optimizers[name] = PhasedOptimizer(partial(self._build, name))
                self.schedulers[name] = PhasedScheduler(self.optimizers[name])
            else:
                self.optimizers[name], self.schedulers[name] = self._build(name, 1)

    def _build(self, name: str, phase: int) -> Built:
        tuning, student = self.method.tuning(phase), self.method.student(name)
        if tuning.by_epoch:
            assert self.make_by_epoch is not None
            return self.make_by_epoch(student)
        if tuning.rate is not None and self.runtime.compiler:
            student.encoder.compile(backend=self.runtime.compiler)  # type: ignore[union-attr]  # in place
        return build(student, tuning, self.make_light)

    # ---------------------------------------------------------------- the course of a run

    def begin(self) -> None:
        """Let the method make its decisions before the first epoch."""
        self.decide(self.method.begin)

    def resumed(self) -> None:
        """Let the method make its decisions before the first epoch of a resumed run."""
        self.decide(self.method.resumed)

    def autocast(self) -> torch.autocast:
        """Return the autocast context of a forward pass. It leaves the gradient mode as it is."""
        return self.runtime.autocast()

    def begin_epoch(self, epoch: int) -> Sequence[Any]:
        """Prepare an epoch: enter its phase, let the method decide its labels, and set up its batches.

        Returns:
            Batches of the epoch.
        """
        method = self.method
        method.epoch, self.phase = epoch, method.phase(epoch)
        late = [o for o in self.optimizers.values() if isinstance(o, PhasedOptimizer) and o.phase != self.phase]
        if late:
            method.enter(self.phase)
        for optimizer in late:
            optimizer.enter(self.phase)
        self.decide(partial(method.prepare, epoch))
        if method.restarts(epoch):
            for optimizer in self.optimizers.values():
                optimizer.enter(self.phase)
        self._number = 0
        self._frequency = {
            name: labels.log_frequency(len(self.clip.classnames)) for name, labels in method.labels.items()
        }
        return self.batches()

    def batches(self) -> Sequence[Any]:
        """Return the batches of the current epoch."""
        method = self.method
        if method.labelled is not None:
            return method.labelled
        streams = {
            name: [Source(s.name, s.index, self._size(s.size, len(s.index))) for s in each]
            for name, each in method.streams().items()
        }
        if not streams:
            return ()
        args = method.views(self.phase), streams, method.steps(self.phase), *method.key(method.epoch)
        num_fixed_views = method.num_fixed_views(self.phase)
        return self.images.batches(*args, num_fixed_views=num_fixed_views, fixed_key=method.key(0))

    def _size(self, size: int | None, images: int) -> int:
        return min(self.images.batch_size if size is None else size, images)

    def end_epoch(self) -> None:
        """Finish an epoch: step per-epoch schedules, and let the method make its final decisions."""
        if self.method.epochs and self.method.tuning(self.phase).by_epoch:
            for scheduler in self.schedulers.values():
                scheduler.step()
        self.decide(partial(self.method.finish, self.method.epoch))

    def loaded(self) -> None:
        """Drop the cached predictor and check the optimizers, after weights were loaded from a checkpoint.

        Raises:
            ValueError: If the state of an optimizer does not fit its parameters.
        """
        self._predictor = None
        for optimizer in self.optimizers.values():
            check_restored(optimizer.optimizer if isinstance(optimizer, PhasedOptimizer) else optimizer)

    def set_mode(self, training: bool) -> None:
        """Set all models to training or evaluation mode."""
        for model in self.method.models.values():
            model.train(training)

    # ---------------------------------------------------------------- decisions

    def decide(self, function: Callable[[], None]) -> None:
        """Run a decision on the main process. The other ranks answer its encoding requests, then receive its result.

        All models are set to evaluation mode before, and stay in it.

        Args:
            function: The decision. It may change model weights and anything in the method's `state_dict`.
        """
        self._predictor = None
        self.set_mode(training=False)
        if self.world.is_main:
            function()
            self.world.broadcast(None)
        else:
            while (request := self.world.broadcast(None)) is not None:
                self.pool.answer(**request)
        self.pool.forget()
        if self.world.is_single:
            return
        state = self.world.broadcast(self.method.state_dict())
        if not self.world.is_main:
            self.method.load_state_dict(state)
        for model in self.method.models.values():
            self.world.broadcast_(value for value in model.state_dict().values() if isinstance(value, Tensor))

    def map(self, function: Callable[[str], Any], names: Sequence[str]) -> list[Any]:
        """Call a function for each name, in parallel where that is faster."""
        with self.runtime.timed("labelling"):
            return self.parallel.map(function, names)

    # ---------------------------------------------------------------- features

    def clip_features(self, num_views: int = 1) -> Table:
        """Return the frozen CLIP's features of all images, averaged over views. Shape (N, embed_dim)."""
        return self.pool.clip_features(num_views)

    def encode(self, encoders: Callable[[], Encoders], num_views: int = 1) -> dict[str, Table]:
        """Encode all images with each model, averaging features over views. Shape (N, embed_dim) each.

        Args:
            encoders: Bound method of the attached method that returns the encoders by model name. Other ranks receive
                only its name.
            num_views: Number of views per image.
        """
        features = self.pool.request(encoders.__name__, None, num_views)
        return {name: Table.of(rows) for name, rows in features.items()}

    def encode_some(self, encoders: Callable[[], Encoders], index: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode different images with each model. Shape (n, embed_dim) each, fp32.

        Args:
            encoders: See `encode`.
            index: Image indices by model name. Shape (n,) each.
        """
        features = self.pool.request(encoders.__name__, dict(index), num_views=1)
        return {name: rows.float() if rows.dtype is torch.float16 else rows for name, rows in features.items()}

    def through_stages(self, images: Tensor, alone: bool = False) -> Tensor:
        """Return the encoder input for images: the cached outputs of CLIP's frozen stages, or the images themselves.

        Args:
            images: Images, shape (n, 3, size, size) or (n, num_views, 3, size, size). Inputs with another number of
                channels are outputs of the stages already, and are returned as they are.
            alone: Whether the calling thread computes missing outputs by itself, as within the step of one model.
        """
        if self.bank is None or images.shape[-3] != COLOURS:
            return images
        with torch.no_grad():
            return self.bank.outputs(images, alone)

    # ---------------------------------------------------------------- steps

    def step(self, batch: Any) -> dict[str, float]:
        """Make one optimizer step of each model, in parallel where that is faster.

        Returns:
            Loss values to report, by name.
        """
        method, drawn = self.method, self.method.drawn(batch)
        work = partial(self._step_of, drawn)
        steps = dict(zip(drawn, self.parallel.map(work, list(drawn), self.runtime.steps_in_parallel), strict=True))
        # Only now, since a step may use the teachers of other models.
        for name, (_, kept) in steps.items():
            kept = kept or [torch.empty(0, 0, device=self.device)]  # on the device of the other ranks' rows
            rows = self.world.gather(torch.cat(kept)) if method.keeps_rows(self.phase) else None
            method.after_step(name, drawn[name].index, rows)
        self._number, self._predictor = self._number + 1, None
        return method.metrics({name: means for name, (means, _) in steps.items()})

    def _step_of(self, drawn: Mapping[str, DrawnBatch], name: str) -> tuple[Losses, list[Tensor]]:
        """Make a step of one model: forward and backward passes by micro-batch, then the optimizer step.

        Returns:
            Loss values to report, and the rows that the method passed to `Batch.keep`.
        """
        optimizer, scaler = self.optimizers[name], self.runtime.scaler
        prediction = None if self.world.is_single else self._mean_prediction(name, drawn[name])
        work = partial(self._gradients, name, drawn[name], prediction)  # may be repeated, so no process waits in it
        means, kept = with_smaller_batches(work, len(drawn[name].position), self.runtime)
        means = self._all_reduce(name, means)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        if not self.method.tuning(self.phase).by_epoch:
            self.schedulers[name].step()
        return means, kept

    def _gradients(self, name: str, drawn: DrawnBatch, prediction: Tensor | None) -> tuple[Losses, list[Tensor]]:
        """Compute the gradients of this rank's part of the batch. They replace the gradients of the last step.

        Args:
            name: Name of the model.
            drawn: The batch.
            prediction: Mean prediction of the whole batch, with several processes. Shape (C,).

        Returns:
            Loss values to report, and the rows that the method passed to `Batch.keep`.
        """
        self.optimizers[name].zero_grad()
        scaler, means, kept = self.runtime.scaler, dict[str, float](), list[Tensor]()
        if self.world.is_single and 0 < self.runtime.micro_batch < len(drawn.position):
            prediction = self._mean_prediction(name, drawn)
        for part in self.parts(name, drawn):
            part.mean_prediction = prediction
            with self.runtime.autocast():
                terms = self.method.loss(name, part)
            loss = sum((term.coefficient * term.mean for term in terms.values()), torch.zeros((), device=self.device))
            if self.world.is_single and not math.isfinite(loss.item()):
                raise FloatingPointError(f"{name}: the loss is {loss.item()}")
            (loss if scaler is None else scaler.scale(loss)).backward()
            means = {key: means.get(key, 0.0) + term.mean.item() for key, term in terms.items()}
            kept += part.kept
        return means, kept

    @torch.no_grad()
    def _mean_prediction(self, name: str, drawn: DrawnBatch) -> Tensor | None:
        """Compute the mean prediction for a batch that is processed in parts, shape (C,); None if no loss needs it."""
        if not self.method.balances(self.phase):
            return None
        total = torch.zeros(len(self.clip.classnames))
        for part in self.parts(name, drawn):
            with self.runtime.autocast():
                total = total + self.method.probability(name, part).sum(dim=0).cpu()
        return self.world.gather(total.unsqueeze(0)).sum(dim=0) / len(drawn.index)

    def parts(self, name: str, drawn: DrawnBatch) -> Iterator[Batch]:
        """Yield the micro-batches of this rank's part of a model's batch."""
        whole = self.method.labels[name].of(drawn.index)
        frequency = self._frequency.get(name, torch.empty(0))
        size = self.runtime.micro_batch or max(1, len(drawn.position))
        if drawn.views is None:
            return
        for position, views in zip(drawn.position.split(size), drawn.views.split(size), strict=True):
            with self.runtime.autocast():
                staged = self.through_stages(views.to(self.device), alone=True)
            yield Batch(staged, whole.at(position), whole, position, frequency, self._number)

    def _all_reduce(self, name: str, means: Losses) -> Losses:
        """Sum gradients and loss values over all ranks. A loss that is not finite raises an error on each of them."""
        if self.world.is_single:
            return means
        parameters = [p for group in self.optimizers[name].param_groups for p in group["params"] if p.requires_grad]
        numbers = [*means.values(), *[0.0] * (MAX_LOSS_VALUES - len(means))]
        sums = self.world.add_gradients(parameters, numbers)
        if not math.isfinite(sum(sums)):
            losses = self.world.gather(torch.tensor([sum(numbers)])).tolist()
            wrong = {rank: value for rank, value in enumerate(losses) if not math.isfinite(value)}
            ranks = ", ".join(f"{value} on rank {rank}" for rank, value in wrong.items())
            raise FloatingPointError(f"{name}: the loss is {ranks or sum(sums)}")
        return dict(zip(means, sums, strict=False))

    # ---------------------------------------------------------------- predictions

    @property
    def predictor(self) -> Predictor | None:
        """Predictor of the method with its current weights, in evaluation mode; None if it has no predictor."""
        if self._predictor is None:
            self._predictor = self.method.predictor()
            for encoder in self._predictor.encoders if self._predictor else ():
                encoder.eval()
        return self._predictor

    @torch.no_grad()
    def predict(self, images: Tensor, predictor: Predictor | None = None) -> Tensor:
        """Return the logits or log-probabilities of images. Shape (n, C).

        Args:
            images: Images. Shape (n, 3, size, size).
            predictor: Predictor to use; by default that of the method.
        """
        predictor = predictor or self.predictor
        if predictor is None:
            with self.runtime.autocast():
                return self.method.predict(images)
        return predictor.log_probabilities(predictor.scores(self._features(predictor, images)))

    @torch.no_grad()
    def predict_each(self, images: Tensor) -> dict[str, Tensor]:
        """Return the class probabilities by each model. Shape (n, C) each.

        If the method does not train, all models get the probabilities of the zero-shot classifier.
        """
        predictor = self.predictor
        assert predictor is not None
        probabilities = predictor.probabilities(predictor.scores(self._features(predictor, images)))
        if self.method.trains:
            return probabilities
        return dict.fromkeys(self.method.models, next(iter(probabilities.values())))

    def _features(self, predictor: Predictor, images: Tensor) -> list[Tensor]:
        dtype = self.runtime.dtype
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            staged = self.through_stages(images)
        return encode_images(predictor.encoders, staged, self.parallel, dtype)
