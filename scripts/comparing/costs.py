"""Cost model of a run on a GPU, hours and memory; explained in docs/performance.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coft.labelling.seeds import SEEDS_SHARE, seed_quota
from coft.rivals.coft_labels import COFT_DEFAULTS

from .plan import Run

RATE = 125e12  # floating-point operations per second that a GPU reaches in bf16
VIEWS_PER_SECOND = 3000.0  # image views read per second, by eight loader processes
START = 60.0  # seconds until a run begins
BACKWARD_FACTOR = 3  # cost of a forward and backward pass, in forward passes
CONTEXT = 1.5  # GB that CUDA's libraries take
COPIES = 11  # copies of an image encoder: the frozen one; per peer weights, gradients, two moments and the EMA
TEXT = 0.25  # GB of the text encoder
PROMPT, KEPT_PROMPT = 0.6, 1.6  # GFLOP of a class's tokens, and MB saved for them: the same for all of `SIZES`


@dataclass(frozen=True)
class Size:
    """Size of a backbone's image encoder, counted with random weights.

    Attributes:
        image: GFLOP per image.
        kept: MB per image that are saved for the backward pass, in bf16.
        parameters: Millions of parameters.
    """

    image: float
    kept: float
    parameters: float


SIZES = {
    "ViT-B/16": Size(33.7, 80.9, 86.2),
    "ViT-B/32": Size(8.7, 20.8, 87.8),
    "RN50": Size(11.6, 49.5, 38.3),
}


@dataclass(frozen=True)
class Facts:
    """Size of a data set in CoOp's split.

    Attributes:
        title: Title in tables.
        classes: Number of classes.
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images.
    """

    title: str
    classes: int
    train: int
    val: int
    test: int


@dataclass(frozen=True)
class Work:
    """Amount of work of a run.

    Attributes:
        encoded: Number of images encoded without a backward pass.
        trained: Number of images encoded with a backward pass.
        prompts: Number of prompts encoded with a backward pass.
        at_once: Number of prompts per step.
        full: Whether all weights of image encoders are trained.
    """

    encoded: float
    trained: float = 0.0
    prompts: float = 0.0
    at_once: int = 0
    full: bool = False


class _Settings:
    """Settings of a run by their short names."""

    def __init__(self, run: Run) -> None:
        self.config, self.section = run.config, f"TRAINER.{run.method.trainer.upper()}"
        self.shots = run.method.shots or 0
        self.batch, self.epochs = self.of("DATALOADER.TRAIN_X.BATCH_SIZE"), self.of("OPTIM.MAX_EPOCH")

    def of(self, key: str, default: float = 0.0) -> Any:
        return self.config.get(key, default)

    def setting(self, key: str, default: float = 0.0) -> Any:
        return self.config.get(f"{self.section}.{key}", default)


def _zero_shot(s: _Settings, facts: Facts) -> Work:
    return Work(facts.test)


def _training_free(s: _Settings, facts: Facts) -> Work:
    return Work(s.setting("LABEL_VIEWS", 1) * facts.train + facts.test)


def _prompt(s: _Settings, facts: Facts) -> Work:
    """Return the work of CoOp and UPL, and of GRIP and CPL, whose rounds take more and more images."""
    models, rounds = s.setting("ENSEMBLE", 1), s.setting("ROUNDS", 0)
    few = min(facts.train, (s.shots or s.setting("SEEDS_PER_CLASS", 16)) * facts.classes)
    drawn = models * s.epochs * (facts.train * (rounds + 1) / 2 if rounds else few)
    labelled = 0 if s.shots else facts.train
    prompts = math.ceil(drawn / s.batch) * facts.classes
    return Work(drawn + labelled + facts.test, 0, prompts, facts.classes)


def _full(s: _Settings, facts: Facts) -> Work:
    """Return the work of LaFTer, self-training, MUST, DPA and full supervision."""
    models, epochs, refresh = s.setting("ENSEMBLE", 1), s.setting("EPOCHS"), s.setting("REFRESH", 0)
    if s.setting("EQUAL_STEPS", False):
        phase1, per_class = COFT_DEFAULTS.phase1, COFT_DEFAULTS.seeds_per_class
        more = _steps_of_phase1(s, _seeds(facts, per_class), phase1.epochs, phase1.min_steps)
        epochs += math.ceil(more / max(1, facts.train // s.batch))
    labellings = math.ceil(epochs / refresh) if refresh else 1
    encoded = models * (labellings * s.setting("LABEL_VIEWS", 1) * facts.train + facts.test)
    return Work(encoded, models * epochs * facts.train, full=True)


def _seeds(facts: Facts, per_class: int) -> int:
    return min(facts.train, seed_quota(facts.train, facts.classes, per_class, SEEDS_SHARE) * facts.classes)


def _steps_of_phase1(s: _Settings, images: int, epochs: int, least: int) -> int:
    return max(epochs * math.ceil(images / s.batch), least)


def _two_phases(s: _Settings, facts: Facts) -> Work:
    """Return the work of DeFT, CoFT and CoFT+: two peers with two prompts each."""
    second, rounds = s.setting("PHASE2.EPOCHS"), s.setting("ROUNDS", 1)
    deft = s.section.endswith("DEFT")
    images = facts.train if deft else _seeds(facts, s.setting("SEEDS_PER_CLASS"))
    steps = 2 * rounds * _steps_of_phase1(s, images, s.setting("PHASE1.EPOCHS"), s.setting("PHASE1.MIN_STEPS"))
    views = s.setting("LABEL_VIEWS", 1)
    labellings = rounds + (1 + second // 2 if views > 1 else 1)
    by_partner = 0 if deft else second * facts.train  # labels of batches
    encoded = 2 * (labellings * views * facts.train + by_partner + facts.test)
    trained = steps * s.batch + 2 * second * facts.train
    return Work(encoded, trained, 2 * steps * facts.classes, 2 * facts.classes, full=True)


WORKS: Mapping[str, Callable[[_Settings, Facts], Work]] = {
    **dict.fromkeys(("ZeroshotCLIP", "ZeroshotCLIP2"), _zero_shot),
    "TrainingFree": _training_free,
    **dict.fromkeys(("CoOp", "UPL", "GRIP", "CPL"), _prompt),
    **dict.fromkeys(("LaFTer", "SelfTraining", "MUST", "DPA", "Supervised"), _full),
    **dict.fromkeys(("DeFT", "CoFT", "CoFTPlus"), _two_phases),
}


def work_of(run: Run, facts: Facts) -> Work:
    """Return the work of a run, which follows from its settings."""
    return WORKS[run.method.trainer](_Settings(run), facts)


def hours(run: Run, facts: Facts) -> float:
    """Estimate the GPU hours of a run: arithmetic or image loading, whichever takes longer."""
    size, work = SIZES[run.backbone], work_of(run, facts)
    arithmetic = size.image * (work.encoded + BACKWARD_FACTOR * work.trained) + BACKWARD_FACTOR * PROMPT * work.prompts
    return (START + max(1e9 * arithmetic / RATE, (work.encoded + work.trained) / VIEWS_PER_SECOND)) / 3600


def gigabytes(run: Run, facts: Facts) -> float:
    """Estimate the peak GPU memory of a run in GB: weights, and activations of a micro-batch and a step's prompts."""
    size, work = SIZES[run.backbone], work_of(run, facts)
    micro = run.config.get("TRAIN.MICRO_BATCH") or run.config["DATALOADER.TRAIN_X.BATCH_SIZE"]
    weights = size.parameters * 4e-3 * (COPIES if work.full else 1) + TEXT
    kept = 1e-3 * (size.kept * (micro if work.trained else 0) + KEPT_PROMPT * work.at_once)
    return CONTEXT + weights + kept
