"""Trainers with a loop over batches of labelled images, or of labelled and unlabelled images."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ..utils.meters import AverageMeter, MetricMeter
from .progress import progress_bar
from .simple import SimpleTrainer

Batch = dict[str, Any]


class _BatchTrainer(SimpleTrainer):
    """A trainer that makes a step on each batch, and reports progress.

    Attributes:
        num_batches: Number of batches per epoch.
        batch_idx: Index of the current batch, counted from 0.
    """

    num_batches: int
    batch_idx: int

    def _run(self, batches: Iterable[tuple[Batch, ...]]) -> None:
        """Make a step on each of `num_batches` batches."""
        self.set_model_mode("train")
        losses, step_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        title = f"epoch [{self.epoch + 1}/{self.max_epoch}]"
        with progress_bar(batches, title, self.num_batches) as bar:
            end = time.time()
            for self.batch_idx, batch in enumerate(bar):
                data_time.update(time.time() - end)
                lr = self.get_current_lr()  # before the step, in which a plugin may step the schedule
                losses.update(self.forward_backward(*batch))
                step_time.update(time.time() - end)
                self._write_scalars(losses, lr)
                eta = f"eta {self._eta(step_time.avg)}"
                bar.set_postfix_str(f"{losses} {eta}", refresh=False)
                if self._is_print_due():
                    print(" ".join([title, *self._report(losses, step_time, data_time, lr), eta]))
                end = time.time()

    def _report(
        self, losses: MetricMeter, step_time: AverageMeter, data_time: AverageMeter, lr: float
    ) -> Iterator[str]:
        yield f"batch [{self.batch_idx + 1}/{self.num_batches}]"
        yield f"time {step_time.val:.3f} ({step_time.avg:.3f})"
        yield f"data {data_time.val:.3f} ({data_time.avg:.3f})"
        if losses.meters:
            yield str(losses)
        yield f"lr {lr:.4e}"

    def _is_print_due(self) -> bool:
        frequency = self.cfg.TRAIN.PRINT_FREQ
        if frequency <= 0:
            return False
        return (self.batch_idx + 1) % frequency == 0 or self.num_batches < frequency

    def _eta(self, seconds_a_batch: float) -> datetime.timedelta:
        """Estimate the time until the last epoch ends."""
        epochs_left = self.max_epoch - self.epoch - 1
        batches_left = self.num_batches - self.batch_idx - 1 + epochs_left * self.num_batches
        return datetime.timedelta(seconds=int(seconds_a_batch * batches_left))

    def _write_scalars(self, losses: MetricMeter, lr: float) -> None:
        step = self.epoch * self.num_batches + self.batch_idx
        for name, meter in losses.meters.items():
            self.write_scalar(f"train/{name}", meter.avg, step)
        self.write_scalar("train/lr", lr, step)


class TrainerX(_BatchTrainer):
    """A trainer on labelled images: `forward_backward(batch)`."""

    def run_epoch(self) -> None:
        """Make a step on each batch of `train_loader_x`."""
        self.num_batches = len(self.train_loader_x)
        self._run(_singles(self.train_loader_x))

    def parse_batch_train(self, batch: Batch) -> Any:
        """Return images, labels and domains of a batch, on the trainer's device."""
        return batch["img"].to(self.device), batch["label"].to(self.device), batch["domain"].to(self.device)


class TrainerXU(_BatchTrainer):
    """A trainer on labelled and unlabelled images: `forward_backward(batch_x, batch_u)`."""

    def run_epoch(self) -> None:
        """Make the number of steps that TRAIN.COUNT_ITER selects; a loader that ends is restarted.

        Raises:
            ValueError: If TRAIN.COUNT_ITER is unknown, or there are no unlabelled images.
        """
        if self.train_loader_u is None:
            raise ValueError(f"{type(self).__name__} needs unlabelled images, but the data set has no train_u")
        sizes = {"train_x": len(self.train_loader_x), "train_u": len(self.train_loader_u)}
        sizes["smaller_one"] = min(sizes.values())
        count = self.cfg.TRAIN.COUNT_ITER
        if count not in sizes:
            raise ValueError(f"TRAIN.COUNT_ITER is {count!r}; expected one of {list(sizes)}")
        self.num_batches = sizes[count]
        self._run(_pairs(self.train_loader_x, self.train_loader_u, self.num_batches))

    def parse_batch_train(self, batch_x: Batch, batch_u: Batch) -> Any:
        """Return labelled images, their labels, and unlabelled images, on the trainer's device."""
        return batch_x["img"].to(self.device), batch_x["label"].to(self.device), batch_u["img"].to(self.device)


def _singles(batches: Iterable[Batch]) -> Iterator[tuple[Batch]]:
    for batch in batches:
        yield (batch,)


class _Endless:
    """Endless batches of a loader, which is restarted whenever it ends."""

    def __init__(self, loader: Iterable[Batch]) -> None:
        self.loader = loader
        self.batches = iter(loader)

    def next(self) -> Batch:
        """Return the next batch."""
        for batch in self.batches:
            return batch
        self.batches = iter(self.loader)
        return next(self.batches)


def _pairs(loader_x: Iterable[Batch], loader_u: Iterable[Batch], count: int) -> Iterator[tuple[Batch, Batch]]:
    labelled, unlabelled = _Endless(loader_x), _Endless(loader_u)
    for _ in range(count):
        yield labelled.next(), unlabelled.next()
