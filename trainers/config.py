"""Config from files and command line, with errors that name the key."""

from __future__ import annotations

import os
import secrets
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from coft.core.config_files import read_config
from coft.core.errors import UserError, did_you_mean
from coft.core.experiment import saved_config
from coft.core.precision import AUTO
from coft.core.settings import shown
from coft.engine.backbone import faster, follow_backbone
from dassl.config import clean_cfg, get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from dassl.evaluation.build import EVALUATOR_REGISTRY

from .merging import Merger


def make_cfg(args: Namespace, extend: Callable[[Any], None]) -> Any:
    """Merge, in this order: defaults, data set file, trainer file, flags, KEY VALUE pairs.

    Args:
        args: Flags of `train.py`.
        extend: Adds the project's keys to Dassl's defaults.

    Returns:
        A frozen config, complete (size and normalisation filled in) and without other trainers' sections.

    Raises:
        UserError: On an unknown file, key, trainer, data set or backbone, or a value of the wrong type.
    """
    cfg = get_cfg_default()
    extend(cfg)
    merger = Merger(cfg)
    for flag, path in (
        ("--dataset-config-file", args.dataset_config_file),
        ("--config-file", args.config_file),
    ):
        if path:
            merger.enter_tree(read_config(flag, path), path)
    enter_flags(merger, args)
    merger.enter_pairs(args.opts or [])
    merger.check()
    check_names(cfg)
    check_weights(cfg)
    clean_cfg(cfg, cfg.TRAINER.NAME)
    follow_backbone(cfg)
    settle_transforms(cfg)
    settle_seed(cfg)
    settle_precision(cfg, args.model_dir if args.eval_only else "")
    cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, os.cpu_count() or 1)
    merger.check()  # again, for now sizes are known
    cfg.freeze()
    return cfg


FLAGS = {
    "root": "DATASET.ROOT",
    "output_dir": "OUTPUT_DIR",
    "resume": "RESUME",
    "source_domains": "DATASET.SOURCE_DOMAINS",
    "target_domains": "DATASET.TARGET_DOMAINS",
    "transforms": "INPUT.TRANSFORMS",
    "trainer": "TRAINER.NAME",
    "backbone": "MODEL.BACKBONE.NAME",
    "head": "MODEL.HEAD.NAME",
    "seed": "SEED",
}


def enter_flags(merger: Merger, args: Namespace) -> None:
    """Enter what CoOp's flags set; a flag that was not given, or is empty, changes nothing."""
    for flag, key in FLAGS.items():
        value = getattr(args, flag)
        if value or value == 0:
            merger.enter(key, value, f"--{flag.replace('_', '-')}")


def check_names(cfg: Any) -> None:
    """Refuse a trainer, data set or evaluator that nobody registered.

    Raises:
        UserError: Naming the nearest registered name.
    """
    for flag, name, registry in (
        ("--trainer" if cfg.TRAINER.NAME else "TRAINER.NAME (--trainer)", cfg.TRAINER.NAME, TRAINER_REGISTRY),
        ("DATASET.NAME", cfg.DATASET.NAME, DATASET_REGISTRY),
        ("TEST.EVALUATOR", cfg.TEST.EVALUATOR, EVALUATOR_REGISTRY),
    ):
        if name not in registry.registered_names():
            raise UserError(f"{flag}: unknown name {name!r}; {did_you_mean(name, registry.registered_names())}")


def check_weights(cfg: Any) -> None:
    """Refuse to start from weights that are not there.

    Raises:
        UserError: If MODEL.INIT_WEIGHTS is no file.
    """
    path = cfg.MODEL.INIT_WEIGHTS
    if path and not os.path.isfile(path):  # noqa: PTH113 (False for whatever cannot be a path)
        raise UserError(f"MODEL.INIT_WEIGHTS is {shown(path)}; no such file: give a checkpoint of prompts, or none")


def settle_transforms(cfg: Any) -> None:
    """Leave mirroring out of Dassl's transforms, too, where INPUT.AUGMENT says that images are symbols."""
    if cfg.INPUT.AUGMENT == "symbols":
        cfg.INPUT.TRANSFORMS = [name for name in cfg.INPUT.TRANSFORMS if name != "random_flip"]


def settle_seed(cfg: Any) -> None:
    """Without a seed, take that of the output folder, else that of the folder to resume from, or draw one."""
    if cfg.SEED < 0:
        folders = [Path(folder) for folder in (cfg.OUTPUT_DIR, cfg.RESUME) if folder]
        known = [saved["SEED"] for saved in map(saved_config, folders) if saved and "SEED" in saved]
        cfg.SEED = known[0] if known else secrets.randbelow(2**31)


def settle_precision(cfg: Any, model_dir: str) -> None:
    """Put the choice of this machine in the place of "auto", or that which a run was begun with.

    Args:
        cfg: The config.
        model_dir: Output folder of a run to evaluate, or "".
    """
    for name, section in cfg.TRAINER.items():
        if isinstance(section, CfgNode) and section.get("PREC") == AUTO:
            folders = [Path(folder) for folder in (model_dir, cfg.RESUME, cfg.OUTPUT_DIR) if folder]
            chosen = [(saved_config(folder) or {}).get(f"TRAINER.{name}.PREC") for folder in folders]
            section.PREC = next(filter(None, chosen), None) or faster(cfg)
