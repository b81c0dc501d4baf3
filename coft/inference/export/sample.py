"""Comparison of an export with the run's model on images, and choice of the encoder to export.

Labels only serve to measure accuracy, never a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from coft.core.errors import UserError, first_line
from coft.core.experiment import saved_config
from coft.core.paths import expanded
from coft.core.untrusted import read_table
from coft.core.words import counted
from coft.inference.locate_model import FOLDER
from coft.inference.model import AdaptedModel
from coft.inference.sources import Resolve, Source, Sources
from coft.inference.stream import read_ahead

from .export_options import AVERAGE, BOTH, DEFAULTS, ExportOptions
from .merging import Exported, Part, parts_of

COUNT = 256  # upper bound of the images in a sample
MOST = 100_000  # upper bound of the rows that are read from a table
TABLES = ("pseudo_labels.csv", "predictions.csv", "labels.csv")  # a run's tables with the paths of its images
TESTED = "test_predictions.csv"  # a run's table with the true classes of its test images
SIZE = 32  # batch size
Predict = Callable[[Tensor], Tensor]  # from normalized images (n, 3, size, size) to probabilities (n, C)
Lines = list[str]
PredictPart = Callable[[AdaptedModel, Part, Tensor], Tensor]


@dataclass(frozen=True)
class Sample:
    """Normalized images for comparisons, and labelled test images; at most `COUNT` of each.

    Attributes:
        images: Images of the run, or images that the user named. Shape (n, 3, size, size); None if none can be read.
        tested: Test images with a known true class. Shape (m, 3, size, size); None if none can be read.
        labels: True labels of the test images. Shape (m,); None without test images.
    """

    images: Tensor | None = None
    tested: Tensor | None = None
    labels: Tensor | None = None

    def halves(self) -> tuple[Sample, Sample]:
        """Split into every other image and the rest. Both halves have all test images, and an only image is in both."""
        if self.images is None or len(self.images) < 2:
            return self, self
        return replace(self, images=self.images[::2]), replace(self, images=self.images[1::2])


def sample(model: AdaptedModel, run: Path, images: list[str], resolve: Resolve = expanded) -> Sample:
    """Take a sample of evenly spaced images.

    Args:
        model: The model, for its preprocessing and classes.
        run: Output folder of the run, or its model folder.
        images: Files, folders or patterns that the user named. If empty, the sample is taken from the run's images, or
            from its test images if it has no table of others.
        resolve: Turns a path as the user wrote it into a path.
    """
    label_of = labels_of_test_images(run, model.classes)
    sources = list(Sources(images, resolve)) if images else images_of_run(run) or list(label_of)
    tested, sources_read = views_of(model, list(label_of))
    labels = None if tested is None else torch.tensor([label_of[source] for source in sources_read])
    return Sample(views_of(model, sources)[0], tested, labels)


def views_of(model: AdaptedModel, sources: Sequence[Source]) -> tuple[Tensor | None, list[Source]]:
    """Read at most `COUNT` evenly spaced images. Files that cannot be read are left out.

    Args:
        model: The model, for its preprocessing.
        sources: The images.

    Returns:
        Normalized images, shape (n, 3, size, size), or None if there are none; and their sources.
    """
    evenly_spaced = sources[:: step_for(len(sources))]
    pairs = [(source, view) for source, view in read_ahead(model, evenly_spaced, SIZE) if isinstance(view, Tensor)]
    views = [view for _, view in pairs]
    batches = [model.batch(views[i : i + SIZE]) for i in range(0, len(views), SIZE)]
    return torch.cat(batches) if batches else None, [source for source, _ in pairs]


def step_for(count: int) -> int:
    """Return the smallest slice step that takes at most `COUNT` of `count` images."""
    return -(-count // COUNT) or 1


def images_of_run(run: Path) -> list[Source]:
    """Return the images in a run's tables that still exist. The first table that is found counts."""
    for table in (folder / name for folder in folders_of(run) for name in TABLES):
        if table.is_file():
            return existing_files(path for path, _ in rows_of(table))
    return []


def folders_of(run: Path) -> tuple[Path, ...]:
    """Return where the tables of a run may be: its output folder, and for its model folder also the parent."""
    return (run, run.parent) if run.name == FOLDER else (run,)


def existing_files(paths: Iterable[str]) -> list[Source]:
    """Return the paths that are existing files."""
    return [Source(path, Path(path)) for path in paths if Path(path).is_file()]


def labels_of_test_images(run: Path, classes: Sequence[str]) -> dict[Source, int]:
    """Return the test images of a run that still exist, with their true labels.

    Args:
        run: Output folder of the run, or its model folder.
        classes: Class names, by label.
    """
    label_of_class = {name: label for label, name in enumerate(classes)}
    for folder in folders_of(run):
        if (folder / TESTED).is_file():
            root = Path(str((saved_config(folder) or {}).get("DATASET.ROOT", "")))
            rows = [(image, name) for image, name in rows_of(folder / TESTED) if name in label_of_class]
            labels = {Source(image, root / image): label_of_class[name] for image, name in rows}
            return {source: label for source, label in labels.items() if source.path.is_file()}
    return {}


def rows_of(table: Path) -> list[tuple[str, str]]:
    """Read the first rows of a run's table, at most `MOST`.

    Returns:
        Image path and class of each row. The class is empty if it is not known. No row for images in memory, which have
        numbers.

    Raises:
        UserError: If the table cannot be read, or has no column of paths or classes, or a row has no path.
    """
    name = "image" if table.name == TESTED else "path"
    try:
        rows = read_table(table, nrows=MOST)
    except (OSError, ValueError) as error:
        raise UserError(f"{table}: is no table ({first_line(error)}); copy it again, or remove it") from error
    if {"number", "class"} <= set(rows):
        return []
    if not {name, "class"} <= set(rows) or (rows[name] == "").any():
        raise UserError(f"{table}: is damaged (a row without {name} or class); copy it again, or remove it")
    return list(zip(rows[name], rows["class"], strict=True))


def agreement(one: Predict, other: Predict, images: Tensor) -> float:
    """Return the percentage of images for which two models predict the same class."""
    return 100 * float((classes_by(one, images) == classes_by(other, images)).double().mean())


def accuracy(predict: Predict, images: Tensor, labels: Tensor) -> float:
    """Return the accuracy in percent."""
    return 100 * float((classes_by(predict, images) == labels).double().mean())


def classes_by(predict: Predict, images: Tensor) -> Tensor:
    """Predict the label of each image. Shape (n,)."""
    return torch.cat([predict(batch).argmax(dim=1) for batch in images.split(SIZE)])


def choose_peers(
    model: AdaptedModel,
    options: ExportOptions,
    sample: Sample,
    predict: PredictPart = lambda model, part, images: Exported([part])(images),
) -> tuple[str, Sample, Lines]:
    """Choose the peers to export: those of the options or, with `single`, the encoder that agrees most with the model.

    Args:
        model: The model.
        options: The options of the export.
        sample: Images of the run. Half of them (every other one) serve the choice, the rest the comparison.
        predict: Function that computes the probabilities of an exported classifier; by default with its own encoder.

    Returns:
        One of `PEERS`, the images that are left for the comparison, and lines about how the peers were chosen.

    Raises:
        UserError: If a choice is needed and there are no images for it.
    """
    if not options.single or len(model.predictor.classifiers) < 2:
        return options.peers or DEFAULTS[options.to], sample, []
    selection, rest = sample.halves()
    if selection.images is None:
        raise UserError("--single: the run's images were not found; give images with --images")
    shares = {}
    averages = () if model.two_checkpoints else (AVERAGE,)
    for peers in (*averages, "a", "b"):  # the first one wins a tie: the average is more robust to other kinds of images
        (part,) = parts_of(model, peers)
        predict_part = partial(predict, model.of_peer(peers), part)
        shares[peers] = agreement(predict_part, probabilities_of(model), selection.images)
    shares_text = ", ".join(f"{peers_phrase(model, peers)} {share:.1f} %" for peers, share in shares.items())
    best = max(shares, key=lambda peers: shares[peers])
    count = counted(len(selection.images), "image")
    return best, rest, [f"chosen by the class of the run's model on {count}: {shares_text}"]


def probabilities_of(model: AdaptedModel) -> Predict:
    """Return a function that predicts the run's model's probabilities."""
    return lambda batch: model.predict(batch).probabilities


def peers_phrase(model: AdaptedModel, peers: str) -> str:
    """Return a phrase that names the exported peers."""
    if len(model.predictor.classifiers) == 1:
        return "the model"
    return {AVERAGE: "the average of the peers' weights", BOTH: "both peers"}.get(peers, f"peer {peers.upper()}")


def describe_agreement(model: AdaptedModel, exported: Predict, title: str, sample: Sample) -> Lines:
    """Return lines about the export's agreement with the run's model, and about the accuracy of both if it is known.

    Args:
        model: The run's model.
        exported: Prediction function of the export.
        title: Phrase that names the exported peers.
        sample: Images for the comparison.
    """
    if sample.images is None:
        lines = [f"{title}; the export was not compared with the run's model: there were no images (--images)"]
    else:
        share = agreement(exported, probabilities_of(model), sample.images)
        count = counted(len(sample.images), "image")
        lines = [f"{title}: the same class as the run's model for {share:.1f} % of {count}"]
    return [*lines, *describe_accuracy("the export", exported, "the run's model", probabilities_of(model), sample)]


def describe_accuracy(name: str, predict: Predict, other_name: str, other_predict: Predict, sample: Sample) -> Lines:
    """Return a line with the accuracy of an export and of the model that it was made from; no line without test images.

    Args:
        name: Phrase that names the export.
        predict: Prediction function of the export.
        other_name: Phrase that names the model that the export was made from.
        other_predict: Prediction function of that model.
        sample: Sample with the test images and their labels.
    """
    if sample.tested is None or sample.labels is None:
        return []
    percents = [accuracy(model, sample.tested, sample.labels) for model in (predict, other_predict)]
    count = counted(len(sample.labels), "labelled test image")
    return [f"accuracy of {name} {percents[0]:.1f} %, of {other_name} {percents[1]:.1f} %, on {count}"]
