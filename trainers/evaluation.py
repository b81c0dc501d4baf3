"""Distributed evaluation: each rank predicts a part of the test images, and all ranks get the results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from coft.core.world import World
from coft.engine.engine import Engine
from coft.labelling.predictor import Predictor, zero_shot

Batches = Iterable[tuple[Tensor, Tensor]]  # images (n, 3, size, size) and labels (n,)


def part_of(loader: Any, world: World) -> Any:
    """Return a loader for this rank's part of the images; the loader itself if it is None or there is one process."""
    if world.is_single or loader is None:
        return loader
    part = world.part(len(loader.dataset))
    return DataLoader(
        Subset(loader.dataset, range(part.start, part.stop)),
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
    )


class TestPredictions:
    """Predicted classes of the test images and their probabilities, collected batch by batch.

    Args:
        world: Processes of the run. Each predicts a part of the images.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.forget()

    def forget(self) -> None:
        """Clear all predictions."""
        self._batches, self._confidence = [torch.empty(0, dtype=torch.long)], [torch.empty(0)]

    def add(self, scores: Tensor) -> None:
        """Add the predictions of a batch, from logits or log-probabilities of shape (n, C)."""
        self._batches.append(scores.argmax(dim=1).cpu())
        self._confidence.append(scores.float().softmax(dim=1).amax(dim=1).cpu())

    def of_all(self) -> Tensor:
        """Gather the predicted classes of all test images, in the order of the images. Shape (N,)."""
        return self.world.gather(torch.cat(self._batches))

    def confidence(self) -> Tensor:
        """Gather the probabilities of the predicted classes, in [0, 1]. Shape (N,)."""
        return self.world.gather(torch.cat(self._confidence))


class TestAccuracy:
    """Test accuracy of each model. The ensemble's predictions are kept for Dassl's test until the weights change.

    Args:
        predicted: Receives the classes that the ensemble of all models predicts.
    """

    def __init__(self, predicted: TestPredictions) -> None:
        self.predicted = predicted
        self.predictor: Predictor | None = None
        self.batches: list[dict[str, Tensor]] = []

    def count_right(self, engine: Engine, batches: Batches) -> dict[str, int]:
        """Count the right predictions of each model, and of "both" together, over all ranks.

        Args:
            engine: Engine with the models.
            batches: Test batches of this rank.

        Returns:
            Number of right predictions by model name, and for "both".
        """
        assert engine.predictor is not None
        self.predictor, self.batches = engine.predictor, []
        self.predicted.forget()
        right = dict.fromkeys([*engine.method.models, "both"], 0)  # a rank may have no images
        for images, labels in batches:
            guesses = engine.predict_each(images)
            guesses["both"] = self.predictor.log_mean(guesses)
            self.predicted.add(guesses["both"])
            self.batches.append({"img": guesses["both"], "label": labels})
            for who, scores in guesses.items():
                right[who] += int((scores.argmax(dim=1) == labels).sum())
        counts = self.predicted.world.sum(torch.tensor(list(right.values()))).tolist()
        return dict(zip(right, counts, strict=True))

    def cached_or(self, loader: Any, engine: Engine) -> Any:
        """Return the kept batches, with log-probabilities for images; the loader if the weights have changed.

        The kept batches are returned only once.
        """
        batches, self.batches = self.batches, []
        return batches if batches and engine.predictor is self.predictor else loader


def count_zero_shot(engine: Engine, batches: Batches) -> dict[str, int]:
    """Count the right predictions of zero-shot CLIP over all ranks; see `TestAccuracy.count_right`."""
    clip, right = engine.clip, 0
    predictor = zero_shot(clip.visual.eval(), clip.zero_shot_text().to(engine.device), clip.scale)
    for images, labels in batches:
        right += int((engine.predict(images, predictor).argmax(dim=1) == labels).sum())
    return {"both": int(engine.world.sum(torch.tensor(right)))}


class WorldEvaluator:
    """Wrapper of a Dassl evaluator that evaluates the predictions of all ranks, in the order of the images.

    Args:
        evaluator: Dassl evaluator.
        num_classes: Number of classes C.
        world: Processes of the run.
    """

    def __init__(self, evaluator: Any, num_classes: int, world: World) -> None:
        self.evaluator, self.num_classes, self.world = evaluator, num_classes, world
        self.reset()

    def reset(self) -> None:
        """Clear all predictions and labels."""
        self.predicted, self.labels = TestPredictions(self.world), [torch.empty(0, dtype=torch.long)]

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Add the model output (n, C) and the labels (n,) of a batch."""
        self.predicted.add(mo)
        self.labels.append(gt.cpu())

    def evaluate(self) -> Any:
        """Return the results over all images, by name."""
        predicted, labels = self.predicted.of_all(), self.world.gather(torch.cat(self.labels))
        self.evaluator.reset()
        self.evaluator.process(F.one_hot(predicted, self.num_classes), labels)
        return self.evaluator.evaluate()
