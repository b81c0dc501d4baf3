"""What a trainer is built from: checks of its config, where and how it computes, CLIP for its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from coft.backbones.backbone import ClassBackbone
from coft.backbones.prompts import all_names
from coft.backbones.unseen import warn_of_unseen
from coft.method.protocol import Runtime
from coft.run.backbone import check_light_module
from coft.runtime.disk_tables import tables_in
from coft.runtime.errors import UserError
from coft.runtime.experiment import has_results
from coft.runtime.precision import PREDICTIONS

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

    Raises:
        UserError: If it is to deal out weights, and to do what goes with whole ones alone; or to put peers apart that
            cannot be.
    """
    cfg = trainer.cfg
    if cfg.TRAIN.SHARD and (scaler or cfg.TRAIN.COMPILE):
        raise UserError(
            "TRAIN.SHARD goes with neither fp16 nor TRAIN.COMPILE; set PREC to fp32 or bf16, and leave COMPILE empty"
        )
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
        shard=cfg.TRAIN.SHARD,
        apart=second_device(trainer) if cfg.TRAIN.PEERS_APART else None,
    )


def second_device(trainer: Any) -> torch.device:
    """The device of the second of two peers that are apart.

    Raises:
        UserError: If there is no such peer or no such device.
    """
    key, gpus = "TRAIN.PEERS_APART", torch.cuda.device_count()
    if not trainer.two_peers:
        raise UserError(f"{key}: {type(trainer).__name__} has no two peers; leave it out")
    if not trainer.world.alone:
        raise UserError(f"{key} is for one process; leave it out: TRAIN.SHARD saves memory where there are several")
    if trainer.device.type != "cuda" or gpus < 2:
        raise UserError(
            f"{key} needs two GPUs, and this run has {gpus if trainer.device.type == 'cuda' else 0}; leave it out"
        )
    return torch.device("cuda", 1)


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
