"""Results of a trainer at its end: `summary.json`, predictions, the model, the report and the closing messages."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from coft.core.files import write_table
from coft.core.untrusted import read_table
from coft.core.words import counted
from coft.engine.class_names import CLASSES, write_classes
from coft.engine.config import METHODS
from coft.engine.diagnostics import calibration_error
from coft.engine.messages import report_accuracies, report_done, report_estimate, report_names, report_next
from coft.engine.predictions import count_by_class, known_accuracy, predict, write_predictions
from coft.report.write import warn_of_report, write_report

from .data import reports_predictions, unlabeled_part

log = logging.getLogger(__name__)


def report_predictions(trainer: Any) -> float:
    """Predict a user's own images, and write `predictions.csv` and the given classes, `classes.txt`.

    Returns:
        Accuracy (percent) over the images whose label is known, which is also recorded for the summary; NaN if none is.
    """
    predicted, confidence, label = map(trainer.world.gather, predict(trainer, trainer.test_loader))
    path = Path(trainer.output_dir) / "predictions.csv"
    images = [item.impath for item in trainer.dm.dataset.test]
    if trainer.world.is_main:
        classes = [trainer.classnames[label] for label in predicted.tolist()]
        write_predictions(path, images, classes, confidence.tolist())
        write_classes(path.with_name(CLASSES), trainer.dm.dataset.classes)
    trainer.results.update({"predicted": len(images), "confidence_predicted": 100 * float(confidence.mean())})
    trainer.tally = count_by_class(trainer.classnames, predicted)
    print(f"Predicted {counted(len(images), 'image')}: {trainer.tally}\n  {path}")
    accuracy = known_accuracy(predicted, label)
    if accuracy is None:
        print("No labels are known: there is no accuracy to report")
        return math.nan
    print(f"* accuracy: {accuracy:.1f}%, by the names of the folders")
    trainer.results["accuracy_test"] = accuracy
    return accuracy


TEST_PREDICTIONS, CONFIDENCE = "test_predictions.csv", "confidence"
AT_END = ("end", CONFIDENCE)  # columns of the test predictions that belong to the end of a run


def calibration(items: Sequence[Any], predicted: Tensor, confidence: Tensor) -> dict[str, float]:
    """Return mean confidence and expected calibration error (percent) of the test images with known labels.

    Empty if no label is known.
    """
    label = torch.tensor([item.label for item in items])
    labelled = label >= 0
    if not labelled.any():
        return {}
    confidence, right = confidence[labelled], (predicted == label)[labelled]
    return {
        "confidence_test": 100 * float(confidence.mean()),
        "calibration_error_test": 100 * calibration_error(confidence, right),
    }


def write_test_predictions(trainer: Any, predictions: dict[str, Tensor], confidence: Tensor | None = None) -> None:
    """Write `test_predictions.csv`: the class of each test image, and its predicted class at each stage.

    Columns of earlier stages are taken from an existing file, of this run or of the one it was resumed or forked from.

    Args:
        trainer: Trainer with the images and the output folder.
        predictions: Predicted classes by stage, which names the column. Shape (n,) each.
        confidence: Probabilities of the final predictions, in [0, 1]. Shape (n,).
    """
    if not trainer.world.is_main:
        return
    items, names, cfg = trainer.dm.dataset.test, trainer.classnames, trainer.cfg
    rows = pd.DataFrame({"image": [shown_path(item.impath, cfg.DATASET.ROOT) for item in items]})
    rows["class"] = [names[item.label] if item.label >= 0 else "" for item in items]
    for folder in filter(None, (trainer.output_dir, cfg.RESUME, cfg.TRAIN.PHASE1_FROM)):
        rows = rows.assign(**earlier_stages(Path(folder) / TEST_PREDICTIONS, rows))
    for stage, predicted in predictions.items():
        rows[stage] = [names[label] for label in predicted.tolist()]
    if confidence is not None:
        rows[CONFIDENCE] = confidence.numpy()
    write_table(rows, Path(trainer.output_dir) / TEST_PREDICTIONS, float_format="%.6f")


def earlier_stages(path: Path, rows: pd.DataFrame) -> dict[str, Any]:
    """Return the columns of stages before the end from a predictions file; empty if unreadable or of other images."""
    try:
        before = read_table(path)
    except (OSError, ValueError):
        return {}
    if list(before.columns[:2]) != ["image", "class"] or not before["image"].equals(rows["image"]):
        return {}
    return {name: before[name] for name in before.columns[2:] if name not in rows and name not in AT_END}


def shown_path(path: str, root: str) -> str:
    """Return a path relative to the root folder of the data sets; unchanged if it is outside of it."""
    try:
        return Path(path).resolve().relative_to(Path(root).resolve()).as_posix()
    except ValueError:
        return path


def write_results(trainer: Any) -> None:
    """Write the final results of a run: summary, model and report."""
    session, folder, cfg = trainer.session, Path(trainer.output_dir), trainer.cfg
    labels = {"labels_used": trainer.labels_used}
    part = {"unlabeled": unlabeled_part(trainer.dm.dataset)} if trainer.spec.label_free else {}
    if trainer.world.is_main:
        seconds = {name: round(value, 2) for name, value in trainer.clock.split().items()}
        more = {"shots": cfg.DATASET.NUM_SHOTS, "seconds_by_part": seconds}
        session.write_summary(folder, **labels, **part, **more)
    session.write_model(folder, **labels, test_images=len(trainer.dm.dataset.test), results=trainer.results)
    try:
        session.write_image_facts(folder)
        if trainer.world.is_main:
            write_report(folder)
    except Exception as error:  # all results are on disk already
        if not trainer.world.is_single:  # other ranks may wait for this one
            raise
        warn_of_report(error)


def tally(trainer: Any) -> str:
    """Return the number of unlabeled images per final label, in words; "" unless all images have a label."""
    labels = next(iter(trainer.method.labels.values()), None)
    if labels is None or len(labels.label) < len(trainer.images or ()):
        return ""
    return count_by_class(trainer.classnames, labels.label)


def report_results(trainer: Any) -> None:
    """Report the outcome of a run to the user."""
    session, results, dataset = trainer.session, trainer.results, trainer.dm.dataset
    run, folder = shlex.quote(str(trainer.output_dir)), shlex.quote(str(Path(trainer.output_dir) / "sorted"))
    following = [f"bash scripts/predict.sh {run} IMAGES    # classes of new images"]
    if reports_predictions(dataset):
        following = [
            f"bash scripts/predict.sh {run} IMAGES --link {folder}    # sort images into a folder for each class"
        ]
        if session.spec in METHODS.values():  # the others cannot be reviewed
            following.insert(0, f"bash scripts/review.sh {run}    # change names of classes")
    before = results.get("zero-shot", {}).get("accuracy_both")
    named = {"by zero-shot CLIP": before, "now" if before else "right": results.get("accuracy_test")}
    accuracies = {name: value for name, value in named.items() if value is not None}
    untrained = session.spec.two_peers and not session.method.trains
    report_done(session.seconds, trainer.tally or tally(trainer), untrained)
    doubtful = report_names(Path(trainer.output_dir))
    if accuracies:
        report_accuracies(accuracies, len(dataset.test))
    elif (confidence := results.get("confidence_predicted")) is not None:
        report_estimate(confidence / 100, session.calibrated, doubtful)
    report_next(Path(trainer.output_dir), following if session.engine.predictor is not None else ())
