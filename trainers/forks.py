"""Runs that take Phase I of another run, to differ in Phase II (TRAIN.PHASE1_FROM)."""

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
    """Refuse a run to fork from that is none, or another one in what Phase I depends on.

    Raises:
        UserError: Naming the key.
    """
    if not spec.two_peers:
        raise UserError(f"TRAIN.PHASE1_FROM: {spec.trainer} has no two phases; leave it empty")
    folder = cfg.TRAIN.PHASE1_FROM
    saved, present = saved_config(Path(folder)), flatten(parse_yaml(cfg.dump()))
    if saved is None:
        raise UserError(f"TRAIN.PHASE1_FROM {folder}: holds no run; give the output folder of one")
    if key := phase1_difference(saved, present):
        raise UserError(
            f"TRAIN.PHASE1_FROM {folder}: {key} is {saved.get(key)!r} there, {present.get(key)!r} here, and Phase I "
            f"depends on it; only settings of Phase II may differ"
        )
    if not next(Path(folder).glob("*/model.pth.tar-*"), None):
        raise unfinished(folder)


def take_phase1(trainer: Any) -> int:
    """Take Phase I of the run that TRAIN.PHASE1_FROM names, and its numbers.

    Returns:
        How many epochs that were.

    Raises:
        UserError: See `check_fork`; or if that run has not come so far.
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
    """The first key by which two flattened configs differ in Phase I; None where that is the same.

    CoFT+ with one round and without descriptions has CoFT's.
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
    """The flattened config of CoFT that has the Phase I of a CoFT+, where there is one; else the config as it is."""
    source = config.get(f"{PLUS}DESCRIPTIONS.FROM")
    named = config.get("DATASET.CLASSES")  # a file may describe the classes
    undescribed = source == "none" or (source == "given" and not named)
    if config.get("TRAINER.NAME") != "CoFTPlus" or not undescribed or config.get(f"{PLUS}ROUNDS") != 1:
        return config
    renamed, shared = {key.replace(PLUS, COFT): value for key, value in config.items()}, SPECS["CoFT"].keys
    of_coft = {key: value for key, value in renamed.items() if key in shared or not key.startswith(COFT)}
    return of_coft | {"TRAINER.NAME": "CoFT"}


def unfinished(folder: str) -> UserError:
    """What is wrong with a run to fork from that is still in Phase I."""
    return UserError(f"TRAIN.PHASE1_FROM {folder}: has not finished Phase I; let it go on until then")
