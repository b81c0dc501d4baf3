"""Command or Python call that repeats a run with other classes and another output folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.experiment import FILES
from coft.core.run_settings import FREE_KEYS, RUN_KEYS
from coft.core.sanitize import has_controls
from coft.core.settings import flatten
from coft.engine.config import METHODS, build_config, declared, keys_by_python_name, python_name
from coft.engine.specs import MethodSpec
from coft.inference.locate_model import description_of, find_model

from .reviewed import Reviewed

SCRIPTS = {"CoFT": "coft.sh", "CoFTPlus": "coft_plus.sh"}
OTHERWISE = {  # keys of the data set that the command sets by a flag, or that need not fit the new classes
    *("DATASET.NAME", "DATASET.IMAGES", "DATASET.CLASSES", "DATASET.ROOT", "DATASET.LABELS_FROM_FOLDERS"),
}
FLAGS = {"SEED", "TRAINER.NAME", "MODEL.BACKBONE.NAME"}  # keys that the command sets by a flag or by its method


def command_with(reviewed: Reviewed, classes: Path) -> str:
    """Build the command. For a run of `coft.adapt` on a list of files, which no folder stands for, it is a Python call.

    Args:
        reviewed: Run under review.
        classes: File with the new classes.

    Raises:
        UserError: If the run's trainer is neither CoFT nor CoFT+, or a setting has control characters.
    """
    trainer = str(reviewed.config.get("TRAINER.NAME"))
    method = next((name for name, spec in METHODS.items() if spec.trainer == trainer), None)
    if method is None:
        raise UserError(f"{reviewed.run.folder}: a run of {trainer}; only those of CoFT and CoFT+ can be reviewed")
    changed, by_script = other_settings(METHODS[method], reviewed.config), "DATASET.IMAGES" in reviewed.config
    if by_script:
        changed = data_settings(reviewed.config) | changed
    common = {"backbone": backbone_of(reviewed), "seed": reviewed.config["SEED"]}
    if any(has_controls(_text(value)) for value in (*common.values(), *changed.values())):
        raise UserError(f"{reviewed.run.folder}: its config.yaml has control characters in a setting; run it again")
    common = {"classes": str(classes.resolve()), **common}
    output = str(_free_folder(reviewed.run.folder.resolve()))
    if by_script:
        words = ["bash", _script(SCRIPTS[trainer]), "folder", "--images", str(reviewed.config["DATASET.IMAGES"])]
        words += _options({**common, "output-dir": output})
        return shlex.join([*words, *(word for name, value in changed.items() for word in (name, _text(value)))])
    common |= {"output": output, "method": method}
    section, names = METHODS[method].section, keys_by_python_name(METHODS[method])
    settings = {python_name(name, section): value for name, value in changed.items()}
    settings = {name: value for name, value in settings.items() if name in names}
    images = str(reviewed.run.summary.get("images", FILES))
    if images == FILES:
        arguments = [f"{name}={_literal(value)}" for name, value in {**common, **settings}.items()]
        return f"coft.adapt(images, {', '.join(arguments)})  # in Python, with the same list of images"
    pairs = [f"{name}={_text(value)}" for name, value in settings.items()]
    return shlex.join(["coft", "adapt", images, *_options(common), *pairs])


def other_settings(spec: MethodSpec, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings that differ from their defaults, by full name, without `FREE_KEYS` and `FLAGS`."""
    backbone = str(config["MODEL.BACKBONE.NAME"])
    defaults = flatten(build_config(spec, backbone, 1, "", {}))
    ignored = FREE_KEYS | FLAGS
    return {
        name: config[name]
        for name in declared(spec)
        if name in config and name not in ignored and config[name] != defaults[name]
    }


def backbone_of(reviewed: Reviewed) -> str:
    """Return the name of a run's backbone from its model, where a path does not depend on the working directory."""
    try:
        return str(description_of(find_model(reviewed.run.folder))["backbone"]["name"])
    except UserError:  # no model is left; `zero_shot_of` says so
        return str(reviewed.config["MODEL.BACKBONE.NAME"])


def data_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings of the data set that differ from their defaults, by full name, without `OTHERWISE`."""
    keys = {name: key for name, key in RUN_KEYS.items() if name.startswith("DATASET.") and name not in OTHERWISE}
    plain = {name: list(key.default) if isinstance(key.default, tuple) else key.default for name, key in keys.items()}
    return {name: config[name] for name, default in plain.items() if config.get(name, default) != default}


def _script(name: str) -> str:
    """Return the path of a script in this checkout; a relative path if the package is installed without scripts."""
    path = Path(__file__).resolve().parents[2] / "scripts" / name
    return str(path) if path.is_file() else f"scripts/{name}"


def _options(values: Mapping[str, Any]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def _text(value: Any) -> str:
    return _literal(value) if isinstance(value, list) else str(value)


def _literal(value: Any) -> str:
    return repr(tuple(value) if isinstance(value, list) else value)


def _free_folder(folder: Path) -> Path:
    """Return the path of a new folder beside the run's folder."""
    return next(path for n in range(2, 10_000) if not (path := folder.with_name(f"{folder.name}-{n}")).exists())
