"""Evaluation by several processes: each looks at a part of the test images, and all know the results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from coft.core.world import World
from coft.engine.engine import Engine
from coft.labelling.losses import log_mean
from coft.labelling.predictor import Predictor, zero_shot

Batches = Iterable[tuple[Tensor, Tensor]]  # images (n, 3, size, size) and labels (n,)


def part_of(loader: Any, world: World) -> Any:
    """A loader of this process's part of the test images; the loader as it is where there is one process, or none."""
    if world.alone or loader is None:
        return loader
    part = world.part(len(loader.dataset))
    return DataLoader(
        Subset(loader.dataset, range(part.start, part.stop)),
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
    )


class Predicted:
    """Classes of test images and their probabilities, as they are predicted batch by batch.

    Args:
        world: The processes; each has a part of the images.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._batches, self._confidence = [torch.empty(0, dtype=torch.long)], [torch.empty(0)]

    def add(self, scores: Tensor) -> None:
        """Take logits, or logs of probabilities, of a batch. Shape (n, C)."""
        self._batches.append(scores.argmax(dim=1).cpu())
        self._confidence.append(scores.float().softmax(dim=1).amax(dim=1).cpu())

    def of_all(self) -> Tensor:
        """Classes of all test images, by all processes, in the order of the images. Shape (N,)."""
        return self.world.gather(torch.cat(self._batches))

    def confidence(self) -> Tensor:
        """Probabilities of these classes, in [0, 1]. Shape (N,)."""
        return self.world.gather(torch.cat(self._confidence))


class Measured:
    """Measures each model on the test images, and keeps what came of it for as long as nothing trains.

    Args:
        predicted: Takes the classes that all models together predict.
    """

    def __init__(self, predicted: Predicted) -> None:
        self.predicted = predicted
        self.predictor: Predictor | None = None
        self.batches: list[dict[str, Tensor]] = []

    def count_right(self, engine: Engine, batches: Batches) -> dict[str, int]:
        """How many images of all processes each model, and "both", get right.

        Args:
            engine: Predicts.
            batches: Of this process.
        """
        self.predictor, self.batches = engine.predictor, []
        self.predicted.forget()
        right = dict.fromkeys([*engine.method.models, "both"], 0)  # a process may have no image
        for images, labels in batches:
            guesses = engine.predict_each(images)
            guesses["both"] = log_mean(guesses)
            self.predicted.add(guesses["both"])
            self.batches.append({"img": guesses["both"], "label": labels})
            for who, scores in guesses.items():
                right[who] += int((scores.argmax(dim=1) == labels).sum())
        counts = self.predicted.world.sum(torch.tensor(list(right.values()))).tolist()
        return dict(zip(right, counts, strict=True))

    def instead_of(self, loader: Any, engine: Engine) -> Any:
        """Batches with logits in the place of images, given away once; the loader, if they are of other weights."""
        batches, self.batches = self.batches, []
        return batches if batches and engine.predictor is self.predictor else loader


def count_zero_shot(engine: Engine, batches: Batches) -> dict[str, int]:
    """How many images of all processes zero-shot CLIP gets right; see `Measured.count_right`."""
    clip, right = engine.clip, 0
    predictor = zero_shot(clip.visual.eval(), clip.zero_shot_text().to(engine.device), clip.scale)
    for images, labels in batches:
        right += int((engine.predict(images, predictor).argmax(dim=1) == labels).sum())
    return {"both": int(engine.world.sum(torch.tensor(right)))}


class WorldEvaluator:
    """An evaluator of Dassl's that sees the predictions of all processes, in the order of the images.

    Args:
        evaluator: Dassl's.
        num_classes: C.
        world: The processes.
    """

    def __init__(self, evaluator: Any, num_classes: int, world: World) -> None:
        self.evaluator, self.num_classes, self.world = evaluator, num_classes, world
        self.reset()

    def reset(self) -> None:
        """Forget what was processed."""
        self.predicted, self.labels = Predicted(self.world), [torch.empty(0, dtype=torch.long)]

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Take in the output (n, C) and the labels (n,) of a batch."""
        self.predicted.add(mo)
        self.labels.append(gt.cpu())

    def evaluate(self) -> Any:
        """Results of all images, by name."""
        predicted, labels = self.predicted.of_all(), self.world.gather(torch.cat(self.labels))
        self.evaluator.reset()
        self.evaluator.process(F.one_hot(predicted, self.num_classes), labels)
        return self.evaluator.evaluate()
