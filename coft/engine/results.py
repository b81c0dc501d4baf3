"""Files that a finished run leaves beside its model, as those of the trainers are."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from coft.core.exit_codes import as_user_error
from coft.core.experiment import KEPT, flatten, versions, write_json
from coft.core.files import write_table
from coft.method.labeller import first_features
from coft.report.image_facts import write_frozen
from coft.report.write import write_report

from .class_names import CLASSES, write_classes

log = logging.getLogger(__name__)


def keep_evidence(method: Any, folder: Path) -> None:
    """Keep what the frozen CLIP knows of a method's unlabeled images, which the report shows.

    Args:
        method: Of two peers, such as CoFT.
        folder: Of the run.
    """
    own, backbone = method.settings, method.backbone
    features = first_features(method.images, backbone, method.runtime, getattr(own, "label_views", 1))
    write_frozen(folder, backbone.classnames, features, backbone.zero_shot_text(), method.runtime.world)


def write_page(method: Any, folder: Path) -> None:
    """Write `report.html`. A run that has come so far does not fail by it."""
    try:
        keep_evidence(method, folder)
        write_report(folder)
    except Exception as error:  # all results are on disk already
        warn_of_report(error)


def warn_of_report(error: Exception) -> None:
    """Say that there is no report, and why: in a line where the user can mend it, else with the traceback."""
    known = as_user_error(error)
    reason = f" ({known.line})" if known else ""
    log.warning("The report could not be written%s; all other files are there", reason, exc_info=not known)


def write_results(run: Any, folder: Path, labels: pd.DataFrame) -> None:
    """Write `predictions.csv`, `classes.txt`, `summary.json`, and of image files `report.html`.

    Args:
        run: A `coft.api.Run` that is at its end.
        folder: Of the results.
        labels: `labels_`.
    """
    named = labels.rename(columns={"number": "path"})[["path", "class", "confidence"]]
    write_table(named, folder / "predictions.csv", float_format="%.6f", lineterminator="\r\n")
    write_classes(folder / CLASSES, run.classes)
    content = {
        "trainer": run.kind.trainer,
        "dataset": "Folder",
        "backbone": run.cfg.MODEL.BACKBONE.NAME,
        "backbone_fingerprint": run.backbone_id,
        "seed": run.cfg.SEED,
        "precision": run.own.prec,
        "labels_used": 0,
        "unlabeled": "images that were given, which are predicted as well (transductive)",
        "ensemble": run.method.ensemble_size,
        **({} if run.method.trains else KEPT),
        "seconds": round(time.monotonic() - run.started, 1),
        "results": {**run.method.observer.results(), "predicted": len(labels)},
        "device": str(run.device),
        "versions": versions("none"),
        "config": run.cfg.dump(),
    }
    write_json(folder / "summary.json", content)
    if run.given.of_files:
        write_page(run.method, folder)


def by_config_name(section: str, own: Any) -> dict[str, Any]:
    """Settings of a method by the names that a config has for them.

    Args:
        section: Of the method, such as "COFT".
        own: What it declares, with values.
    """
    keys = flatten(asdict(own), f"TRAINER.{section}.")
    return {".".join(part.rstrip("_").upper() for part in key.split(".")): value for key, value in keys.items()}


def not_default(section: str, own: Any) -> dict[str, Any]:
    """Likewise, those that are others than the defaults."""
    default = by_config_name(section, type(own)())
    return {key: value for key, value in by_config_name(section, own).items() if value != default[key]}
