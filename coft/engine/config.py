"""Config of a run that is started from Python: keyword arguments named after config keys.

`PHASE1.EPOCHS` of the method's section is `phase1__epochs`, `INPUT.SIZE` is `input__size`: lower case, with two
underscores for a dot, as in scikit-learn. Defaults are those of the command line: the declared ones, then those in the
config file for method and backbone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import yaml

from coft.core.config_files import evaluated, read_config
from coft.core.errors import UserError, did_you_mean
from coft.core.files import given_path
from coft.core.precision import AUTO
from coft.core.run_settings import RUN_KEYS
from coft.core.settings import Key, checked, flatten

from .backbone import check_light_module, faster, follow_backbone
from .specs import SPECS, MethodSpec
from .trainer_configs import trainer_config

READ = {name.split(".")[0] for name, key in RUN_KEYS.items() if key.adapt}  # sections of which `coft.adapt` reads a key
METHODS = {"coft": SPECS["CoFT"], "coft+": SPECS["CoFTPlus"]}


class Config(dict[str, Any]):
    """Nested settings by name, which are also accessible as attributes."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def tree(self) -> dict[str, Any]:
        """Return nested dictionaries, with tuples as lists."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in self.items()}
        return {name: value.tree() if isinstance(value, Config) else value for name, value in plain.items()}

    def dump(self) -> str:
        """Return the settings as YAML."""
        return str(yaml.safe_dump(self.tree()))


def spec_of(method: str) -> MethodSpec:
    """Return the specification of a method by its name.

    Raises:
        UserError: If there is no such method.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise UserError(f"method is {method!r}; {did_you_mean(str(method), METHODS)}")
    return METHODS[method]


def python_name(name: str, section: str) -> str:
    """Return the Python name of a config key. Keys of the method lose the prefix of their section."""
    return name.removeprefix(f"{section}.").replace(".", "__").lower()


def declared(spec: MethodSpec) -> dict[str, Key]:
    """Return all settings of a run, by full name."""
    of_run = {name: key for name, key in RUN_KEYS.items() if "." not in name or name.split(".")[0] in READ}
    return of_run | spec.keys


def keys_by_python_name(spec: MethodSpec) -> dict[str, Key]:
    """Return the settings that a user may pass, by Python name. Each `Key` holds its full name."""
    return {
        python_name(name, spec.section): key
        for name, key in declared(spec).items()
        if key.adapt or name.startswith(f"{spec.section}.")
    }


def parse(spec: MethodSpec, name: str, text: str) -> Any:
    """Parse the text that a user gave for a setting, according to its type.

    Raises:
        UserError: If there is no such setting.
    """
    return evaluated(_key(spec, name), text)


def _key(spec: MethodSpec, name: str) -> Key:
    names = keys_by_python_name(spec)
    if name not in names:
        raise UserError(f"unknown setting {name!r}; {did_you_mean(name, names)}")
    return names[name]


def build_config(spec: MethodSpec, backbone: str, seed: int, output: str, arguments: Mapping[str, Any]) -> Config:
    """Build the complete config of a run.

    Args:
        spec: Specification of the method.
        backbone: Name or path of the CLIP.
        seed: Random seed.
        output: Output folder, or "".
        arguments: Settings from the user, by Python name.

    Returns:
        The config, including the values that depend on the backbone and the machine.

    Raises:
        UserError: On an unknown name, an invalid value, or an unknown backbone.
    """
    settings = declared(spec)
    key = replace(settings["MODEL.BACKBONE.NAME"], name="backbone")
    backbone = checked(key, os.fspath(backbone) if isinstance(backbone, os.PathLike) else backbone)
    given_path(backbone, "backbone")  # refuses texts that can be neither name nor path, such as 5,000 characters
    arguments = {name: _plain(value) for name, value in arguments.items()}
    changes = {_key(spec, name).name: checked(replace(_key(spec, name), name=name), x) for name, x in arguments.items()}
    changes |= {"TRAINER.NAME": spec.trainer, "MODEL.BACKBONE.NAME": backbone, "DATASET.NAME": "Folder"}
    changes |= {"SEED": checked(replace(settings["SEED"], name="seed"), _plain(seed)), "OUTPUT_DIR": output}
    values = {name: key.default for name, key in settings.items()}
    file = trainer_config(spec.trainer, backbone, changes.get("MODEL.BACKBONE.TRUST_JIT", False))
    for name, value in flatten(read_config("configs", str(file)) if file else {}).items():
        if name in settings:
            values[name] = checked(settings[name], evaluated(settings[name], value))
    cfg = _nested(values | changes)
    follow_backbone(cfg)
    section = getattr(cfg.TRAINER, spec.trainer.upper())
    check_light_module(section.VISUAL, "visual")
    section.PREC = faster(cfg) if section.PREC == AUTO else section.PREC
    cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, os.cpu_count() or 1)
    return cfg


def _plain(value: Any) -> Any:
    """Convert a number or array of NumPy to Python's numbers."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _nested(values: Mapping[str, Any]) -> Config:
    root = Config()
    for name, value in values.items():
        *above, leaf = name.split(".")
        node = root
        for part in above:
            node = node.setdefault(part, Config())
        node[leaf] = value
    return root
