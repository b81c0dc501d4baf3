"""Measure how often the report detects wrong class names: `python -m scripts.name_signals DATASET [flags of coft.sh]`.

Nothing is trained: images are labelled as for the choice of CoFT's seeds. Names are made wrong in three ways, a
quarter of them at a time, at most 22:

- unrelated: the name is replaced by the word for an unrelated object;
- neighbour's: the name is replaced by a kind of the class with the nearest name: "deer" becomes "small horse";
- two kinds: the name is removed, and its images get other labels. The class that gets most of them counts as wrong.

A flagged class also counts as correctly flagged if a quarter of its images are of one other class: it is a mixture of
two kinds. The script reads labels, for evaluation only.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import train
import trainers
from coft.backbones.prompts import ensemble_features
from coft.core.exit_codes import guarded
from coft.labelling.first_labels import corrected_scores, likeliest, zero_shot_logits
from coft.labelling.neighbours import centred
from coft.report.names import BELIEVED, FIT, KINDS, Signals, believed_of, measure, suspects
from dassl.engine import build_trainer
from scripts.comparing.tables import markdown
from scripts.launch import parse, train_arguments
from trainers.config import make_cfg
from trainers.data import labels_of, unlabeled_data

WORDS = (  # objects that are a class of no data set in this project
    *("violin", "pancake", "scissors", "toothbrush", "microscope", "umbrella", "wallet", "teapot", "keyboard"),
    *("necklace", "helmet", "candle", "ladder", "bucket", "pillow", "hammer", "mirror", "carpet", "trumpet"),
    *("saddle", "compass", "blanket"),
)
TRIALS = 10  # number of trials of each corruption
WRONG = 0.25  # share of the names that are made wrong in a trial
MIXED = 0.25  # share of images of one other class from which on a class counts as two kinds
UNCHANGED = "names as they are"
CORRUPTIONS = ("unrelated", "neighbour's", "two kinds", UNCHANGED)


@dataclass(frozen=True)
class Evaluation:
    """Images and class names of a trainer, and the functions that label and score them.

    Attributes:
        names: Names of the C classes.
        text: Text features of the names. Shape (C, k).
        encode: Function from n names to their text features. Shape (n, k).
        label: Function from text features to the label of each image. Shape (N,).
        signals: Function from text features and labels to the signals of each class.
        truth: True labels. Shape (N,).
    """

    names: Sequence[str]
    text: Tensor
    encode: Callable[[Sequence[str]], Tensor]
    label: Callable[[Tensor], np.ndarray]
    signals: Callable[[Tensor, np.ndarray], list[Signals]]
    truth: np.ndarray


def evaluation_of(trainer: Any) -> Evaluation:
    """Collect the images and names of a CoFT trainer."""
    method, clip = trainer.method, trainer.engine.clip
    features, tau = trainer.engine.clip_features(method.settings.label_views), method.settings.prior_tau

    def label(text: Tensor) -> np.ndarray:
        logits = zero_shot_logits(features, text, clip.scale)
        return likeliest(corrected_scores(features, logits, tau, method.neighbours)[0]).numpy()

    def signals(text: Tensor, labels: np.ndarray) -> list[Signals]:
        rows, names = features.all(), text.numpy()
        believed = believed_of(rows, names, clip.scale, labels)
        return measure(centred(rows, features.mean()), names, labels, believed)

    def encode(names: Sequence[str]) -> Tensor:
        return ensemble_features(clip.clip_model, names, clip.templates, {}).float().cpu()

    truth = labels_of(trainer.images, unlabeled_data(trainer.cfg, trainer.dm.dataset, "CoFT")).numpy()
    return Evaluation(clip.classnames, method.zero_shot_text().float().cpu(), encode, label, signals, truth)


@dataclass(frozen=True)
class Trial:
    """A set of C' class names, some of them wrong, with the classes that the report flags.

    Attributes:
        text: Text features of the names. Shape (C', k).
        wrong: Labels of the wrong names.
        flagged: Labels of the classes that the report flags.
        mixed: Labels of the classes that are two kinds.
    """

    text: Tensor
    wrong: set[int]
    flagged: set[int]
    mixed: set[int]


def corrupt(evaluation: Evaluation, corruption: str, chosen: Sequence[int], rng: np.random.Generator) -> Trial:
    """Make the names of the chosen classes wrong in one of `CORRUPTIONS`, and find those that the report flags."""
    kept, text = np.arange(len(evaluation.names)), evaluation.text.clone()
    if corruption == "two kinds":
        kept = np.setdiff1d(kept, chosen)
        text = text[torch.from_numpy(kept)]
    elif corruption != UNCHANGED:
        words = (
            rng.choice(WORDS, len(chosen), replace=False)
            if corruption == "unrelated"
            else kinds_of_nearest(evaluation, chosen)
        )
        text[list(chosen)] = evaluation.encode(list(words))
    labels = evaluation.label(text)
    wrong = set() if corruption == UNCHANGED else set(chosen)
    if corruption == "two kinds":
        wrong = {int(np.bincount(labels[evaluation.truth == label]).argmax()) for label in chosen}
    flagged = {suspect.label for suspect in suspects(evaluation.signals(text, labels))}
    return Trial(text, wrong, flagged, mixed_classes(labels, evaluation.truth, kept))


def mixed_classes(labels: np.ndarray, truth: np.ndarray, kept: np.ndarray) -> set[int]:
    """Return the labels of classes in which one other class makes up a quarter of the images or more.

    Args:
        labels: Label of each image, an index into the remaining names. Shape (N,).
        truth: True labels, indices into all names. Shape (N,).
        kept: True label of each remaining name. Shape (C',).
    """
    mixed = set()
    for label in set(labels.tolist()):
        counts = np.bincount(truth[labels == label], minlength=int(kept.max()) + 1)
        counts[kept[label]] = 0
        if counts.max() >= MIXED * (labels == label).sum():
            mixed.add(label)
    return mixed


def kinds_of_nearest(evaluation: Evaluation, labels: Sequence[int]) -> list[str]:
    """Return, for each of the given classes, the name of a kind of the class with the nearest name."""
    likeness = evaluation.text @ evaluation.text.t()
    likeness.fill_diagonal_(-torch.inf)
    return [f"small {evaluation.names[int(likeness[label].argmax())]}" for label in labels]


def detection_row(evaluation: Evaluation, corruption: str) -> list[str]:
    """Return a row of the table: recall and precision of wrong names, and the share of right names that are flagged."""
    rng = np.random.default_rng(0)
    count = len(evaluation.names)
    number = max(1, min(len(WORDS), int(WRONG * count)))
    chosen = [rng.choice(count, number, replace=False).tolist() for _ in range(TRIALS)]
    trials = [
        corrupt(evaluation, corruption, labels, rng) for labels in (chosen[:1] if corruption == UNCHANGED else chosen)
    ]
    wrong = sum(len(trial.wrong) for trial in trials)
    hits = sum(len(trial.wrong & trial.flagged) for trial in trials)
    flagged = sum(len(trial.flagged) for trial in trials)
    right = sum(len(trial.text) - len(trial.wrong | trial.mixed) for trial in trials)
    false_alarms = sum(len(trial.flagged - trial.wrong - trial.mixed) for trial in trials)
    shares = [(hits, wrong), (flagged - false_alarms, flagged), (false_alarms, right)]
    return [corruption, str(wrong), *(f"{part / whole:.0%}" if whole else "-" for part, whole in shares)]


def main(argv: Sequence[str]) -> int:
    """Print how often wrong names of a data set are detected. Returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = train_arguments("CoFT", parse("CoFT", [*argv, "--output-dir", folder]))
        evaluation = evaluation_of(
            build_trainer(make_cfg(train.make_parser().parse_args(arguments), trainers.extend_cfg))
        )
    head = ["wrong names", "of them", "found", "of what is shown right", "right names shown"]
    print(markdown([detection_row(evaluation, corruption) for corruption in CORRUPTIONS], head))
    print(f"suspicious: believed below {BELIEVED}, name fit below {FIT}, or kinds {KINDS} or more")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
