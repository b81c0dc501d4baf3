"""The command that trains anew: that of the run, with other classes and another output folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.experiment import FREE_KEYS, flatten
from coft.engine.settings import METHODS, Kind, declared, known, python_name, settle
from coft.report.words import common_folder

from .reviewed import Reviewed

SCRIPTS = {"CoFT": "coft.sh", "CoFTPlus": "coft_plus.sh"}
FLAGS = {"SEED", "TRAINER.NAME", "MODEL.BACKBONE.NAME"}  # have a flag of their own


def command_with(own: Reviewed, classes: Path) -> str:
    """The command.

    Args:
        own: The run.
        classes: File of the classes.

    Raises:
        UserError: If the run's trainer is none that finds such a file.
    """
    trainer = str(own.config.get("TRAINER.NAME"))
    method = next((name for name, kind in METHODS.items() if kind.trainer == trainer), None)
    if method is None:
        raise UserError(f"{own.run.folder}: a run of {trainer}; only those of CoFT and CoFT+ can be reviewed")
    output = _free(own.run.folder.resolve())
    backbone, seed = str(own.config["MODEL.BACKBONE.NAME"]), str(own.config["SEED"])
    changed = other_settings(METHODS[method], own.config)
    if "DATASET.IMAGES" in own.config:
        words = ["bash", _script(SCRIPTS[trainer]), "folder", "--images", str(own.config["DATASET.IMAGES"])]
        words += ["--classes", str(classes.resolve()), "--backbone", backbone, "--seed", seed]
        words += ["--output-dir", str(output), *(word for pair in changed.items() for word in pair)]
    else:
        section, names = METHODS[method].section, known(METHODS[method])
        settings = {python_name(name, section): value for name, value in changed.items()}
        words = ["coft", "adapt", common_folder(list(own.run.images["path"])), "--classes", str(classes.resolve())]
        words += ["--output", str(output), "--backbone", backbone, "--method", method, "--seed", seed]
        words += [f"{name}={value}" for name, value in settings.items() if name in names]
    return shlex.join(words)


def other_settings(kind: Kind, config: Mapping[str, Any]) -> dict[str, str]:
    """Settings of a run that are not those that it would have without a word, by full name."""
    backbone = str(config["MODEL.BACKBONE.NAME"])
    usual = flatten(settle(kind, backbone, 1, "", {}).tree())
    free = FREE_KEYS | FLAGS
    return {
        name: _text(config[name])
        for name in declared(kind)
        if name in config and name not in free and config[name] != usual[name]
    }


def _script(name: str) -> str:
    """A script of this checkout, from wherever it is called; of an installed package, as the README writes it."""
    path = Path(__file__).resolve().parents[2] / "scripts" / name
    return str(path) if path.is_file() else f"scripts/{name}"


def _text(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, list) else str(value)


def _free(folder: Path) -> Path:
    """A folder beside a run's that does not exist."""
    return next(p for n in range(2, 10_000) if not (p := folder.with_name(f"{folder.name}-{n}")).exists())
