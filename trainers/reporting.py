"""What a trainer reports at its end: `summary.json`, and predictions of images whose labels nobody may know."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from coft.runtime.experiment import versions, write_json
from coft.runtime.predictions import count_by_class, known_accuracy, predict, write_predictions

from .toolbox import dassl_in_use


def report_predictions(trainer: Any) -> float:
    """Write `predictions.csv`.

    Returns:
        Accuracy (percent) over the images whose label is known, which is noted for the summary, or NaN.
    """
    predicted, confidence, label = predict(trainer, trainer.test_loader)
    path = Path(trainer.output_dir) / "predictions.csv"
    images = [item.impath for item in trainer.dm.dataset.test]
    write_predictions(path, images, trainer.classnames, predicted, confidence)
    trainer.results["predicted"] = len(images)
    print(f"Predicted {len(images)} images: {count_by_class(trainer.classnames, predicted)}\n  {path}")
    accuracy = known_accuracy(predicted, label)
    if accuracy is None:
        print("No labels are known: there is no accuracy to report")
        return math.nan
    print(f"* accuracy: {accuracy:.1f}%, by the names of the folders")
    trainer.results["accuracy_test"] = accuracy
    return accuracy


def write_summary(trainer: Any, **more: Any) -> None:
    """Write `summary.json`: config, versions, seed, seconds, accuracies."""
    cfg = trainer.cfg
    content = {
        "trainer": type(trainer).__name__,
        "dataset": getattr(trainer.dm.dataset, "title", cfg.DATASET.NAME),
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "backbone_fingerprint": trainer.backbone_id,
        "seed": cfg.SEED,
        "shots": cfg.DATASET.NUM_SHOTS,
        "precision": trainer.precision,
        "labels_used": trainer.labels_used,
        **({"unlabeled": trainer.unlabeled_part} if trainer.label_free else {}),
        "ensemble": trainer.method.ensemble_size,
        "seconds": round(time.monotonic() - trainer.started, 1),
        "seconds_by_part": {part: round(value, 2) for part, value in trainer.clock.split().items()},
        "results": trainer.results,
        **more,
        "device": str(trainer.device),
        "versions": versions(dassl_in_use()),
        "config": cfg.dump(),
    }
    write_json(Path(trainer.output_dir) / "summary.json", content)
