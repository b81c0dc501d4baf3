"""The finished model of a run, as it can be used without Dassl: the folder `model`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coft.core.experiment import versions
from coft.engine.inputs import decoding_of, inputs_of
from coft.engine.results import by_config_name, not_default
from coft.inference.locate_model import FOLDER
from coft.inference.model import AdaptedModel, Origin
from coft.inference.store import portable_name, save

from .toolbox import dassl_in_use


def write_model(trainer: Any) -> None:
    """Write what a finished trainer predicts with to its output folder, if it predicts with image classifiers.

    One process writes.

    Raises:
        UserError: If it cannot be written.
    """
    trainer.set_model_mode("eval")
    predictor = trainer.method.predictor()  # in all processes: weights may have to be put together for it
    if predictor is None or not trainer.world.writes:
        return
    cfg = trainer.cfg
    name = portable_name(cfg.MODEL.BACKBONE.NAME)
    model = AdaptedModel(
        tuple(trainer.classnames),
        tuple(trainer.templates),
        Origin(name, trainer.backbone_id, max(0, cfg.MODEL.BACKBONE.FROZEN_STAGES)),
        inputs_of(cfg),
        decoding_of(cfg),
        trainer.precision,
        predictor,
        trainer.clip_model,
        about(trainer),
    )
    save(model, Path(trainer.output_dir) / FOLDER)


def about(trainer: Any) -> dict[str, Any]:
    """What people may want to know of a run: what it was, on what, with which settings, and what came out."""
    return {
        "trainer": type(trainer).__name__,
        "dataset": getattr(trainer.dm.dataset, "title", trainer.cfg.DATASET.NAME),
        "unlabeled_images": len(trainer.images) if trainer.label_free else 0,
        "labels_used": trainer.labels_used,
        "test_images": len(trainer.dm.dataset.test),
        "seed": trainer.cfg.SEED,
        "settings": by_config_name(trainer.section, trainer.own) if trainer.own else {},
        "not_default": not_default(trainer.section, trainer.own) if trainer.own else {},
        "results": trainer.results,
        "versions": versions(dassl_in_use()),
    }
