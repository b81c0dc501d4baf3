"""Config from files and command line, with errors that name the key."""

from __future__ import annotations

import os
import re
import secrets
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from yacs.config import CfgNode

from coft.backbones.load import CLIP_MEAN, CLIP_STD, architecture
from coft.runtime.errors import UserError, did_you_mean
from coft.runtime.experiment import flatten, saved_config
from coft.runtime.precision import AUTO, faster_precision
from dassl.config import clean_cfg, get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY


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
    for flag, path in (
        ("--dataset-config-file", args.dataset_config_file),
        ("--config-file", args.config_file),
    ):
        if path:
            merge_file(cfg, flag, path)
    merge_flags(cfg, args)
    merge_pairs(cfg, args.opts or [])
    check_names(cfg)
    clean_cfg(cfg, cfg.TRAINER.NAME)
    follow_backbone(cfg)
    settle_transforms(cfg)
    settle_seed(cfg)
    settle_precision(cfg, args.model_dir if args.eval_only else "")
    cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, os.cpu_count() or 1)
    cfg.freeze()
    return cfg


def merge_file(cfg: Any, flag: str, path: str) -> None:
    """Merge a YAML file.

    Raises:
        UserError: If it is missing, is no YAML, or has a wrong key or value.
    """
    file = Path(path)
    if not file.is_file():
        names = [str(p) for p in file.parent.glob("*.yaml")]
        hint = did_you_mean(path, names) if names else "check the path"
        raise UserError(f"{flag} {path}: no such file; {hint}")
    try:
        cfg.merge_from_file(path)
    except (KeyError, ValueError, AttributeError, AssertionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {_explain(cfg, error)}") from error


def merge_flags(cfg: Any, args: Namespace) -> None:
    """Enter what CoOp's flags set; a flag that was not given changes nothing."""
    for flag, node, key in (
        ("root", cfg.DATASET, "ROOT"),
        ("output_dir", cfg, "OUTPUT_DIR"),
        ("resume", cfg, "RESUME"),
        ("source_domains", cfg.DATASET, "SOURCE_DOMAINS"),
        ("target_domains", cfg.DATASET, "TARGET_DOMAINS"),
        ("transforms", cfg.INPUT, "TRANSFORMS"),
        ("trainer", cfg.TRAINER, "NAME"),
        ("backbone", cfg.MODEL.BACKBONE, "NAME"),
        ("head", cfg.MODEL.HEAD, "NAME"),
    ):
        if getattr(args, flag):
            node[key] = getattr(args, flag)
    if args.seed is not None:
        cfg.SEED = args.seed


def merge_pairs(cfg: Any, pairs: list[str]) -> None:
    """Enter KEY VALUE pairs.

    Raises:
        UserError: On a key without a value, an unknown key, or a value of the wrong type.
    """
    if len(pairs) % 2:
        raise UserError(f"{pairs[-1]}: a key without a value; write KEY VALUE pairs after the flags")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if key not in flatten(cfg):
            raise UserError(f"unknown config key {key!r}; {did_you_mean(key, flatten(cfg))}")
        try:
            cfg.merge_from_list([key, value])
        except (ValueError, KeyError, AttributeError, AssertionError) as error:
            raise UserError(f"{key} {value}: {_explain(cfg, error, key)}") from error


def _explain(cfg: Any, error: Exception, key: str = "") -> str:
    text = " ".join(str(error.args[0] if error.args else error).split())
    unknown = re.search(r"Non-existent (?:config )?key: (\S+)", text)
    if unknown:
        return f"unknown config key {unknown[1]!r}; {did_you_mean(unknown[1], flatten(cfg))}"
    mismatch = re.search(r"Type mismatch \(<class '(\w+)'> vs\. <class '(\w+)'>\).*config key: (\S+)", text)
    if mismatch:
        note = " (write 1.0 for 1)" if mismatch[1] == "float" else ""
        return f"{key or mismatch[3]} takes {mismatch[1]}{note}, not {mismatch[2]}"
    return text


def check_names(cfg: Any) -> None:
    """Refuse a trainer or data set that nobody registered.

    Raises:
        UserError: Naming the nearest registered name.
    """
    for flag, name, registry in (
        ("--trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY),
        ("DATASET.NAME", cfg.DATASET.NAME, DATASET_REGISTRY),
    ):
        if name not in registry.registered_names():
            raise UserError(f"{flag}: unknown name {name!r}; {did_you_mean(name, registry.registered_names())}")


def follow_backbone(cfg: Any) -> None:
    """Fill in size, mean and standard deviation of the backbone, where they are not set."""
    size = architecture(cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.TRUST_JIT).resolution
    cfg.INPUT.SIZE = tuple(cfg.INPUT.SIZE) or (size, size)
    cfg.INPUT.PIXEL_MEAN = list(cfg.INPUT.PIXEL_MEAN) or list(CLIP_MEAN)
    cfg.INPUT.PIXEL_STD = list(cfg.INPUT.PIXEL_STD) or list(CLIP_STD)


def settle_transforms(cfg: Any) -> None:
    """Leave mirroring out of Dassl's transforms, too, where INPUT.AUGMENT says that images are symbols."""
    if cfg.INPUT.AUGMENT == "symbols":
        cfg.INPUT.TRANSFORMS = [name for name in cfg.INPUT.TRANSFORMS if name != "random_flip"]


def settle_seed(cfg: Any) -> None:
    """Without a seed, take the one that the output folder was begun with, or draw one."""
    if cfg.SEED < 0:
        saved = saved_config(Path(cfg.OUTPUT_DIR)) or {}
        cfg.SEED = saved.get("SEED", secrets.randbelow(2**31))


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
            device = "cuda" if cfg.USE_CUDA and torch.cuda.is_available() else "cpu"
            section.PREC = next(filter(None, chosen), None) or faster_precision(device)
