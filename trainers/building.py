"""What a trainer is built from: checks of its config, where and how it computes, CLIP for its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from coft.backbones.backbone import ClassBackbone
from coft.backbones.prompts import all_names
from coft.backbones.unseen import warn_of_unseen
from coft.core.disk_tables import tables_in
from coft.core.errors import UserError
from coft.core.experiment import has_results
from coft.core.precision import PREDICTIONS
from coft.engine.backbone import check_light_module
from coft.method.protocol import Runtime

from .described import described_text


def check_choices(trainer: Any, cfg: Any) -> None:
    """Refuse what would fail later: a light module or a run to fork that is not there, the best epoch by labels.

    Raises:
        UserError: Naming the key.
    """
    section = trainer.section
    module = cfg.TRAINER[section].get("VISUAL", "auto") if section else "auto"
    check_light_module(module, f"TRAINER.{section}.VISUAL")
    if trainer.label_free and cfg.TEST.FINAL_MODEL != "last_step":
        raise UserError(
            f"TEST.FINAL_MODEL is {cfg.TEST.FINAL_MODEL!r}, which chooses an epoch by labels; "
            f"{type(trainer).__name__} reads none: leave it at last_step"
        )
    if cfg.TRAIN.FORK and not has_results(Path(cfg.OUTPUT_DIR)):  # a run that goes on has no more need of it
        trainer.check_fork(cfg)


def runtime_of(trainer: Any, dtype: torch.dtype | None, scaler: Any) -> Runtime:
    """Where and how a trainer's method computes.

    Args:
        trainer: Has config, device and settings.
        dtype: Of the forward pass; None is fp32.
        scaler: Gradient scaler of fp16.
    """
    cfg = trainer.cfg
    return Runtime(
        cfg.SEED,
        trainer.device,
        dtype,
        scaler=scaler,
        predicts_in_bf16=getattr(trainer.own, "prec", "") == PREDICTIONS,
        micro_batch=cfg.TRAIN.MICRO_BATCH,
        compiler=cfg.TRAIN.COMPILE,
        allocate=tables_in(cfg.OUTPUT_DIR),
        timed=trainer.clock.part,
        guard=cfg.TRAIN.GUARD,
        world=trainer.world,
    )


def backbone_of(trainer: Any) -> ClassBackbone:
    """The frozen CLIP with the classes of a trainer's data set."""
    warn_of_unseen(trainer.cfg.MODEL.BACKBONE.NAME, all_names(trainer.classnames, trainer.synonyms)[0])
    return ClassBackbone(
        trainer.clip_model,
        trainer.classnames,
        trainer.templates,
        trainer.identity,
        lambda templates: described_text(trainer, templates),
        trainer.runtime.allocate,
        trainer.runtime.predicts_in_bf16,
        trainer.synonyms,
        trainer.world,
    )
