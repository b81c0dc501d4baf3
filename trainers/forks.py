"""Forked runs, which take Phase I from another run and differ only in Phase II (TRAIN.PHASE1_FROM)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.experiment import saved_config
from coft.core.settings import flatten
from coft.core.yaml_text import parse_yaml
from coft.engine.specs import SPECS, MethodSpec

from .sections import declared

PLUS, COFT = "TRAINER.COFTPLUS.", "TRAINER.COFT."


def check_fork(spec: MethodSpec, cfg: Any) -> None:
    """Check that the run to fork from exists, and has the same settings in all that Phase I depends on.

    Raises:
        UserError: If it does not. The message names the key.
    """
    if not spec.two_peers:
        raise UserError(f"TRAIN.PHASE1_FROM: {spec.trainer} has no two phases; leave it empty")
    folder = cfg.TRAIN.PHASE1_FROM
    saved, present = saved_config(Path(folder)), flatten(parse_yaml(cfg.dump()))
    if saved is None:
        raise UserError(f"TRAIN.PHASE1_FROM {folder}: contains no run; give the output folder of one")
    if key := phase1_difference(saved, present):
        raise UserError(
            f"TRAIN.PHASE1_FROM {folder}: {key} is {saved.get(key)!r} there, {present.get(key)!r} here, and Phase I "
            f"depends on it; only settings of Phase II may differ"
        )
    if not next(Path(folder).glob("*/model.pth.tar-*"), None):
        raise unfinished(folder)


def take_phase1(trainer: Any) -> int:
    """Load the checkpoint of Phase I from the run that TRAIN.PHASE1_FROM names, and its metrics.

    Returns:
        Number of epochs of Phase I.

    Raises:
        UserError: See `check_fork`; or if that run has not finished Phase I.
    """
    folder, method = trainer.cfg.TRAIN.PHASE1_FROM, trainer.method
    check_fork(trainer.spec, trainer.cfg)
    done = next(epoch for epoch in range(method.epochs) if method.phase(epoch) == 2)
    if not all((Path(folder) / name / f"model.pth.tar-{done}").is_file() for name in trainer.get_model_names()):
        raise unfinished(folder)
    trainer.load_model(folder, epoch=done)
    trainer.session.log.resume(done, Path(folder))
    return done


def phase1_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """Return the first key by which two flattened configs differ in Phase I; None if their Phase I is the same.

    CoFT+ with one round and without descriptions has the same Phase I as CoFT.
    """
    name, declarations = "TRAINER.NAME", declared()
    if first.get(name) != second.get(name):
        first, second = _as_coft(first), _as_coft(second)
    for key in (name, *sorted(first.keys() | second.keys())):
        values = first.get(key), second.get(key)
        declaration = declarations.get(key)
        if not (declaration.same_phase1(*values) if declaration else values[0] == values[1]):
            return key
    return None


def _as_coft(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the CoFT config with the same Phase I as a CoFT+ config, both flattened; else the config itself."""
    source = config.get(f"{PLUS}DESCRIPTIONS.FROM")
    named = config.get("DATASET.CLASSES")  # a file of classes may have descriptions
    undescribed = source == "none" or (source == "given" and not named)
    if config.get("TRAINER.NAME") != "CoFTPlus" or not undescribed or config.get(f"{PLUS}ROUNDS") != 1:
        return config
    renamed, shared = {key.replace(PLUS, COFT): value for key, value in config.items()}, SPECS["CoFT"].keys
    of_coft = {key: value for key, value in renamed.items() if key in shared or not key.startswith(COFT)}
    return of_coft | {"TRAINER.NAME": "CoFT"}


def unfinished(folder: str) -> UserError:
    """Return the error for a run to fork from that has not finished Phase I."""
    return UserError(f"TRAIN.PHASE1_FROM {folder}: has not finished Phase I; resume it first")
