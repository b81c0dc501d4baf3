"""Files that a finished run leaves beside its model, as those of the trainers are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd

from coft.runtime.experiment import versions, write_json
from coft.runtime.files import replacing


def write_results(run: Any, folder: Path, labels: pd.DataFrame) -> None:
    """Write `predictions.csv` and `summary.json`.

    Args:
        run: A `coft.run.adapt.Run` that is at its end.
        folder: Of the results.
        labels: `labels_`.
    """
    named = labels.rename(columns={"number": "path"})[["path", "class", "confidence"]]
    with replacing(folder / "predictions.csv") as draft:
        named.to_csv(draft, index=False, float_format="%.6f", lineterminator="\r\n", errors="surrogateescape")
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
        "seconds": round(time.monotonic() - run.started, 1),
        "results": {**run.method.observer.results(), "predicted": len(labels)},
        "device": str(run.device),
        "versions": versions("none"),
        "config": run.cfg.dump(),
    }
    write_json(folder / "summary.json", content)
