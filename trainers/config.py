"""Config of a run, merged from files, flags and KEY VALUE pairs. Every value is checked, and errors name the key."""

from __future__ import annotations

import os
import secrets
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from coft.core.config_files import evaluated, read_config, unquoted
from coft.core.errors import UserError, did_you_mean
from coft.core.experiment import saved_config
from coft.core.precision import AUTO
from coft.core.settings import SettingError, checked, join
from coft.engine.backbone import faster, follow_backbone
from dassl.config import clean_cfg, get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from dassl.evaluation.build import EVALUATOR_REGISTRY
from datasets.base import dataset_root

from .sections import check_together, known_keys, put

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


class Merger:
    """Config into which checked values are merged.

    Args:
        cfg: Config with all its defaults; changed in place.
        trainer: Name of the trainer, of whose keys one is suggested in place of an unknown one; "" for any.
    """

    def __init__(self, cfg: Any, trainer: str = "") -> None:
        self.cfg, self.trainer, self.keys = cfg, trainer, known_keys(cfg)
        self.sections = {name[:end] for name in self.keys for end, letter in enumerate(name) if letter == "."}
        self.origins: dict[str, str] = {}

    def enter(self, name: str, value: Any, origin: str = "") -> None:
        """Set a key.

        Args:
            name: Full name of the key.
            value: New value. A text is evaluated as a Python literal, unless the key takes text.
            origin: File or flag that the value comes from; "" for a KEY VALUE pair.

        Raises:
            UserError: If the key does not exist, or the value is invalid.
        """
        self.origins[name] = start = f"{origin}: " if origin else ""
        if name not in self.keys:
            raise UserError(start + self._unknown(name))
        try:
            put(self.cfg, name, checked(self.keys[name], evaluated(self.keys[name], value)))
        except SettingError as error:
            raise UserError(f"{start}{error}") from error

    def enter_tree(self, tree: dict[Any, Any], origin: str, section: str = "") -> None:
        """Set the keys of a section from a file. An empty section changes nothing.

        Raises:
            UserError: See `enter`.
        """
        for key, value in tree.items():
            name = join(section, str(key))
            if name in self.sections and (value is None or isinstance(value, dict)):
                self.enter_tree(value or {}, origin, name)
            else:
                self.enter(name, value, origin)

    def enter_pairs(self, pairs: list[str]) -> None:
        """Set keys from KEY VALUE pairs.

        Raises:
            UserError: On a key without a value; see also `enter`.
        """
        if len(pairs) % 2:
            raise UserError(f"{pairs[-1]}: a key without a value; write KEY VALUE pairs after the flags")
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            key = self.keys.get(name)
            self.enter(name, unquoted(value) if key and key.kind is str and not key.is_list else value)

    def check(self) -> None:
        """Check the config as a whole.

        Raises:
            UserError: If settings are inconsistent. The message names the key, and the file or flag that set it.
        """
        try:
            check_together(self.cfg)
        except SettingError as error:
            raise UserError(f"{self.origins.get(error.key, '')}{error}") from error

    def _unknown(self, name: str) -> str:
        if name in self.sections:
            example = next(key for key in self.keys if key.startswith(f"{name}."))
            return f"{name} is a section; set one of its keys, such as {example}"
        keys = [key for key in self.keys if self._may_be_meant(key)]
        if same := [key for key in keys if key.endswith(f".{name}")]:
            return f"unknown config key {name!r}; did you mean {' or '.join(map(repr, same))}?"
        return f"unknown config key {name!r}; {did_you_mean(name, [*keys, *sorted(self.sections)])}"

    def _may_be_meant(self, key: str) -> bool:
        of_a_trainer = key.startswith("TRAINER.") and key != "TRAINER.NAME"
        return not (self.trainer and of_a_trainer) or key.startswith(f"TRAINER.{self.trainer.upper()}.")


def make_cfg(args: Namespace, extend: Callable[[Any], None]) -> Any:
    """Build the config. Merged in this order: defaults, data set file, trainer file, flags, KEY VALUE pairs.

    Args:
        args: Command-line arguments of `train.py`.
        extend: Function that adds the project's keys to Dassl's defaults.

    Returns:
        Frozen config, with size and normalisation filled in and without other trainers' sections.

    Raises:
        UserError: On an unknown file, key, trainer, data set or backbone, or a value of the wrong type.
    """
    cfg = get_cfg_default()
    extend(cfg)
    merger = Merger(cfg, args.trainer)
    for flag, path in (
        ("--dataset-config-file", args.dataset_config_file),
        ("--config-file", args.config_file),
    ):
        if path:
            merger.enter_tree(read_config(flag, path), path)
    enter_flags(merger, args)
    merger.enter_pairs(args.opts or [])
    check_names(cfg)
    clean_cfg(cfg, cfg.TRAINER.NAME)
    follow_backbone(cfg)
    cfg.DATASET.ROOT = str(dataset_root(cfg))  # later commands may be given in another folder
    resolve_transforms(cfg)
    resolve_seed(cfg)
    resolve_precision(cfg, args.model_dir if args.eval_only else "")
    cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, os.cpu_count() or 1)
    merger.check()
    cfg.freeze()
    return cfg


def enter_flags(merger: Merger, args: Namespace) -> None:
    """Set the keys of CoOp's flags. A flag that is missing or empty changes nothing."""
    for flag, key in FLAGS.items():
        value = getattr(args, flag)
        if value or value == 0:
            merger.enter(key, value, f"--{flag.replace('_', '-')}")


def check_names(cfg: Any) -> None:
    """Check that trainer, data set and evaluator are registered.

    Raises:
        UserError: If one is not. The message suggests the nearest registered name.
    """
    for flag, name, registry in (
        ("--trainer" if cfg.TRAINER.NAME else "TRAINER.NAME (--trainer)", cfg.TRAINER.NAME, TRAINER_REGISTRY),
        ("DATASET.NAME", cfg.DATASET.NAME, DATASET_REGISTRY),
        ("TEST.EVALUATOR", cfg.TEST.EVALUATOR, EVALUATOR_REGISTRY),
    ):
        if name not in registry.registered_names():
            raise UserError(f"{flag}: unknown name {name!r}; {did_you_mean(name, registry.registered_names())}")


def resolve_transforms(cfg: Any) -> None:
    """Remove the random flip from Dassl's transforms if INPUT.AUGMENT says that the images are symbols."""
    if cfg.INPUT.AUGMENT == "symbols":
        cfg.INPUT.TRANSFORMS = [name for name in cfg.INPUT.TRANSFORMS if name != "random_flip"]


def resolve_seed(cfg: Any) -> None:
    """Fill in a missing seed: that of the output folder, else that of the folder to resume from, else a random one."""
    if cfg.SEED < 0:
        folders = [Path(folder) for folder in (cfg.OUTPUT_DIR, cfg.RESUME) if folder]
        seeds = [saved["SEED"] for saved in map(saved_config, folders) if saved and "SEED" in saved]
        cfg.SEED = seeds[0] if seeds else secrets.randbelow(2**31)


def resolve_precision(cfg: Any, model_dir: str) -> None:
    """Replace the precision "auto" by that of the run to evaluate or continue, else by the fastest on this machine.

    Args:
        cfg: Config; changed in place.
        model_dir: Output folder of a run to evaluate, or "".
    """
    for name, section in cfg.TRAINER.items():
        if isinstance(section, CfgNode) and section.get("PREC") == AUTO:
            folders = [Path(folder) for folder in (model_dir, cfg.RESUME, cfg.OUTPUT_DIR) if folder]
            chosen = [(saved_config(folder) or {}).get(f"TRAINER.{name}.PREC") for folder in folders]
            section.PREC = next(filter(None, chosen), None) or faster(cfg)
