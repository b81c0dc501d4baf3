"""Training loop. A batch depends only on seed and step, so a stopped run resumes where it was."""

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from coft.core.errors import UserError
from coft.core.files import replacing
from coft.core.precision import faster_precision
from weights.photographs.captions import Batch
from weights.pretrain.augment import picture
from weights.pretrain.captions import Captions
from weights.pretrain.distil import Distillation
from weights.pretrain.library import Library
from weights.pretrain.model import Features, Student

logger = logging.getLogger(__name__)

LEAST = 8  # fewest drawings of a word in the bag-of-words loss


@dataclass(frozen=True)
class Recipe:
    """Training settings.

    Attributes:
        steps: Number of batches.
        batch: Number of pairs per batch.
        lr: Peak learning rate (AdamW, linear warm-up, cosine to zero).
        weight_decay: Weight decay of matrices; vectors have none.
        warmup: Number of warm-up steps.
        word_weight: Weight of the bag-of-words loss.
        mild_after: Share of the steps before the second stage, which has milder augmentation.
        mild: Strength of augmentation in the second stage.
        distilled: Share of the steps, at the start, in which the student learns from the teacher only.
        seed: Seed of all random numbers.
    """

    steps: int
    batch: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 200
    word_weight: float = 0.5
    mild_after: float = 0.75
    mild: float = 0.5
    distilled: float = 0.0
    seed: int = 1

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.5 + 0.5 * math.cos(math.pi * done))

    def strength(self, step: int) -> float:
        """Return the strength of augmentation of a step."""
        return 1.0 if step < self.mild_after * self.steps else self.mild


class Words:
    """Words that occur in the names of at least ``LEAST`` drawings, and the words of each concept."""

    def __init__(self, library: Library) -> None:
        names = [words.split() for words in library.concepts]
        counts: Counter[str] = Counter()
        for label, count in enumerate(np.bincount(library.label, minlength=len(names))):
            counts.update({word: int(count) for word in names[label]})
        self.words = sorted(word for word, count in counts.items() if count >= LEAST)
        index_of = {word: index for index, word in enumerate(self.words)}
        self._of = [[index_of[word] for word in name if word in index_of] for name in names]

    def of(self, labels: list[int]) -> Tensor:
        """Return the mask of the words of some concepts, given by label, bool ``[len(labels), W]``."""
        mask = torch.zeros(len(labels), len(self.words), dtype=torch.bool)
        for row, label in enumerate(labels):
            mask[row, self._of[label]] = True
        return mask


def same(labels: Tensor, texts: Tensor) -> Tensor:
    """Return the mask of positive pairs of pictures and captions: same concept or same words; bool ``[B, B]``."""
    return (labels[:, None] == labels) | (texts[:, None] == texts)


def contrast(features: Features, scale: Tensor, positives: Tensor) -> Tensor:
    """Compute symmetric InfoNCE with targets divided evenly among the positives.

    Args:
        features: Features of B pairs.
        scale: Logit scale, a scalar.
        positives: Mask of positive pairs, bool ``[B, B]``, symmetric, true on the diagonal.
    """
    logits = scale * features.image @ features.text.t()
    targets = positives.float() / positives.sum(1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.t(), targets)) / 2


def bag_of_words(logits: Tensor, words: Tensor) -> Tensor:
    """Compute the cross entropy to equal probabilities of a name's words. Names without any of the W words are ignored.

    Args:
        logits: Logits of the words, ``[B, W]``.
        words: Mask of the words of each name, bool ``[B, W]``.
    """
    count = words.sum(1)
    loss = F.cross_entropy(logits.float(), words.float() / count.clamp_min(1)[:, None], reduction="none")
    return (loss * (count > 0)).sum() / (count > 0).sum().clamp_min(1)


class Trainer:
    """Training of a student on a library.

    Args:
        student: Model to train.
        library: Training drawings.
        captions: Generator of prompts.
        words: Words of the bag-of-words loss.
        recipe: Training settings.
        folder: Folder of the training state and the learning curve.
        evaluate: Function of the student that returns numbers for the learning curve; called regularly.
        distillation: Losses of the first part of the training, if the recipe has a teacher.
        save_every: Number of steps between saved states.
        evaluate_every: Number of steps between rows of the learning curve.
        compiled: Whether to compile the image encoder, which needs a C++ compiler.
    """

    def __init__(
        self,
        *,
        student: Student,
        library: Library,
        captions: Captions,
        words: Words,
        recipe: Recipe,
        folder: Path,
        evaluate: Callable[[Student], dict[str, float]] | None = None,
        distillation: Distillation | None = None,
        save_every: int = 250,
        evaluate_every: int = 500,
        compiled: bool = False,
    ) -> None:
        self.student, self.library, self.captions, self.words = student, library, captions, words
        self.recipe, self.folder, self.evaluate, self.distillation = recipe, folder, evaluate, distillation
        self.save_every, self.evaluate_every = save_every, evaluate_every
        matrices = [p for p in student.parameters() if p.ndim >= 2]
        vectors = [p for p in student.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)
        self.step = 0
        self.curve: list[dict[str, float]] = []
        student.clip.visual.to(memory_format=torch.channels_last)
        if compiled:
            student.compile_images()

    def run(self) -> Student:
        """Train from the last saved state to the end."""
        self._resume()
        start, first_step = time.monotonic(), self.step
        with tqdm(total=self.recipe.steps, initial=first_step, desc=self.folder.name, unit="step") as bar:
            while self.step < self.recipe.steps:
                figures = self._train_step()
                self.step += 1
                bar.update()
                bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()}, refresh=False)
                if self.step % self.evaluate_every == 0 or self.step == self.recipe.steps:
                    self._record(figures, time.monotonic() - start)
                if self.step % self.save_every == 0 or self.step == self.recipe.steps:
                    self._save()
        return self.student

    def _train_step(self) -> dict[str, float]:
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)
        drawings = torch.multinomial(self.library.weights, self.recipe.batch, replacement=True, generator=generator)
        labels = self.library.label[drawings.numpy()].tolist()
        images = picture(self.library.take(drawings), self.recipe.strength(self.step), generator)
        prompts = self.captions.prompts(labels, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        self.student.train()
        losses = self._losses(images, prompts, labels, generator)
        self.optimizer.zero_grad(set_to_none=True)
        sum(losses.values(), start=torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.student.clip.logit_scale.clamp_(max=math.log(100))  # as CLIP does
        return {name: loss.item() for name, loss in losses.items()}

    def _losses(
        self, images: Tensor, prompts: Batch, labels: list[int], generator: torch.Generator
    ) -> dict[str, Tensor]:
        images = images.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=faster_precision("cpu") == "bf16"):
            if self.distillation is not None and self.step < self.recipe.distilled * self.recipe.steps:
                return self.distillation(*self.student.encode_images(images), self.student.hints, images)
            features = self.student(images, prompts, generator)
        positives = same(torch.tensor(labels), prompts.targets)
        scale = self.student.clip.logit_scale.exp()
        return {
            "contrast": contrast(features, scale, positives),
            "words": self.recipe.word_weight * bag_of_words(features.words, self.words.of(labels)),
        }

    def _record(self, figures: dict[str, float], seconds: float) -> None:
        row = {"step": self.step, "pairs": self.step * self.recipe.batch, "seconds": round(seconds), **figures}
        if self.evaluate is not None:
            self.student.eval()
            row |= self.evaluate(self.student)
        self.curve.append({name: round(value, 4) for name, value in row.items()})
        logger.info("%s", self.curve[-1])

    def _save(self) -> None:
        state: dict[str, Any] = {"step": self.step, "curve": self.curve, "recipe": asdict(self.recipe)}
        state |= {"student": self.student.state_dict(), "optimizer": self.optimizer.state_dict()}
        with replacing(self.folder / "state.pt") as draft, draft.open("wb") as file:
            torch.save(state, file)
        (self.folder / "curve.json").write_text(json.dumps(self.curve, indent=1))

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise UserError(f"{path} belongs to another recipe; move it away, or restore the recipe")
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.curve = state["step"], state["curve"]
