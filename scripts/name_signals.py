"""Measure how often the report finds wrong names: `python -m scripts.name_signals DATASET [flags of coft.sh]`.

It trains nothing. The classes are those from which CoFT chooses its seeds. Names are made wrong in three ways, one of
twenty classes at a time, and at least one:

- unrelated: another thing's word in the place of the name;
- neighbour's: a kind of the class whose name is nearest, so that a "deer" goes by "small horse";
- two kinds: the name is left out, and its images come under other names. The class that takes most of them is wrong.

It reads labels, for people to look at.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import train
import trainers
from coft.backbones.prompts import ensemble_features
from coft.core.exit_codes import guarded
from coft.labelling.first_labels import first_scores, likeliest, zero_shot_logits
from coft.labelling.neighbours import centred
from coft.report.names import AT_LEAST, BELIEVED, FIT, TAKEN, Signals, believed_of, measure, suspects
from dassl.engine import build_trainer
from scripts.comparing.tables import markdown
from scripts.launch import parse, train_arguments
from trainers.config import make_cfg
from trainers.data import labels_of, unlabeled_data

WORDS = (  # things that no data set here has as a class
    *("violin", "pancake", "scissors", "toothbrush", "microscope", "umbrella", "wallet", "teapot", "keyboard"),
    *("necklace", "helmet", "candle", "ladder", "bucket", "pillow", "hammer", "mirror", "carpet", "trumpet"),
)
TRIALS = 10  # of each way
OF_CLASSES = 20  # one class of so many is wrong at a time
WAYS = ("unrelated", "neighbour's", "two kinds")


@dataclass(frozen=True)
class World:
    """What names are made wrong in.

    Attributes:
        names: C class names.
        text: Their text features. Shape (C, k).
        encode: Names to text features. Shape (n, k).
        label: Text features to the label of each image. Shape (N,).
        signals: Text features and labels to the signals of each class.
        truth: Right labels. Shape (N,).
    """

    names: Sequence[str]
    text: Tensor
    encode: Callable[[Sequence[str]], Tensor]
    label: Callable[[Tensor], np.ndarray]
    signals: Callable[[Tensor, np.ndarray], list[Signals]]
    truth: np.ndarray


def world_of(trainer: Any) -> World:
    """The images and names of a trainer of CoFT."""
    method, clip = trainer.method, trainer.engine.clip
    features, tau = trainer.engine.clip_features(method.settings.label_views), method.settings.prior_tau

    def label(text: Tensor) -> np.ndarray:
        return likeliest(first_scores(features, text, clip.scale, tau, method.neighbours)).numpy()

    def signals(text: Tensor, labels: np.ndarray) -> list[Signals]:
        zero_shot = likeliest(zero_shot_logits(features, text, clip.scale)).numpy()
        rows, names = features.all(), text.numpy()
        believed = believed_of(rows, names, clip.scale, labels)
        return measure(centred(rows, features.mean()), names, labels, zero_shot, believed)

    def encode(names: Sequence[str]) -> Tensor:
        return ensemble_features(clip.clip_model, names, clip.templates, {}).float().cpu()

    truth = labels_of(trainer.images, unlabeled_data(trainer.cfg, trainer.dm.dataset, "CoFT")).numpy()
    return World(clip.classnames, method.zero_shot_text().float().cpu(), encode, label, signals, truth)


def wrong_names(world: World, way: str, rng: np.random.Generator) -> Iterator[tuple[Tensor, set[int]]]:
    """Text features of names some of which are wrong, and the labels of these."""
    count = len(world.names)
    for trial in range(TRIALS):
        several = max(1, count // OF_CLASSES)
        chosen = [trial % count] if several == 1 else rng.choice(count, several, replace=False).tolist()
        if way == "two kinds":
            kept = [label for label in range(count) if label != chosen[0]]
            text = world.text[kept]
            yield text, {int(np.bincount(world.label(text)[world.truth == chosen[0]]).argmax())}
            continue
        words = rng.choice(WORDS, several, replace=False) if way == "unrelated" else kinds_of_nearest(world, chosen)
        text = world.text.clone()
        text[chosen] = world.encode(list(words))
        yield text, set(chosen)


def kinds_of_nearest(world: World, labels: Sequence[int]) -> list[str]:
    """A kind of the class whose name is nearest, for each of some classes."""
    likeness = world.text @ world.text.t()
    likeness.fill_diagonal_(-torch.inf)
    return [f"small {world.names[int(likeness[label].argmax())]}" for label in labels]


def count_found(world: World, way: str) -> list[str]:
    """A row: how many wrong names are found, and how many of what is found are wrong."""
    rng = np.random.default_rng(0)
    hits = shown = wrong = 0
    for text, labels in wrong_names(world, way, rng):
        suspicious = {suspect.label for suspect in suspects(world.signals(text, world.label(text)))}
        hits, shown, wrong = hits + len(suspicious & labels), shown + len(suspicious), wrong + len(labels)
    return [way, str(wrong), f"{hits / wrong:.0%}", f"{hits / shown:.0%}" if shown else "-"]


def as_they_are(world: World) -> str:
    """How many classes are suspicious where no name was changed, and how many of these are wrong all the same."""
    labels = world.label(world.text)
    signals = world.signals(world.text, labels)
    large = [label for label, of_class in enumerate(signals) if of_class.images >= AT_LEAST]
    wrong = {label for label in large if np.bincount(world.truth[labels == label]).argmax() != label}
    suspicious = {suspect.label for suspect in suspects(signals)}
    return (
        f"names as they are: {len(large)} classes with {AT_LEAST} images or more; most images of {len(wrong)} are of "
        f"another class, {len(wrong & suspicious)} of these found; {len(suspicious - wrong)} others shown"
    )


def main(argv: Sequence[str]) -> int:
    """Print how often wrong names of a data set are found. Returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = train_arguments("CoFT", parse("CoFT", [*argv, "--output-dir", folder]))
        world = world_of(build_trainer(make_cfg(train.make_parser().parse_args(arguments), trainers.extend_cfg)))
    print(as_they_are(world))
    print(
        markdown(
            [count_found(world, way) for way in WAYS], ["wrong names", "of them", "found", "of what is found wrong"]
        )
    )
    print(f"suspicious: believed below {BELIEVED}, name fit below {FIT}, or taken {TAKEN} or more")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
