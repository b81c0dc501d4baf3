"""Settings of a run that a program gives: names of docs/settings.md as Python writes them.

`PHASE1.EPOCHS` of the method's section is `phase1__epochs`, `INPUT.SIZE` is `input__size`: lower case, two underscores
for a dot, as scikit-learn has it. Defaults are those of the commands: what is declared, then the file of configs that
suits method and backbone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import yaml

from coft.core.config_files import read_config
from coft.core.errors import UserError, did_you_mean
from coft.core.experiment import flatten
from coft.core.precision import AUTO
from coft.core.settings import Key, checked, keys, load
from coft.core.values import evaluated
from coft.method.coft import CoFT
from coft.method.coft_plus import CoFTPlus, CoFTPlusSettings
from coft.method.coft_settings import CoFTSettings

from .backbone import check_light_module, faster, follow_backbone
from .data_settings import Dataloader, Input
from .run_settings import Model, Optim, Root, Train
from .trainer_configs import trainer_config

SECTIONS: dict[str, type] = {
    "": Root,
    "INPUT": Input,
    "DATALOADER": Dataloader,
    "MODEL": Model,
    "OPTIM": Optim,
    "TRAIN": Train,
}
READ = (  # of those sections; the rest is Dassl's, or an argument of its own
    *("USE_CUDA", "INPUT.SIZE", "INPUT.INTERPOLATION", "INPUT.AUGMENT", "INPUT.REDUCED_JPEG", "INPUT.SHRINK_TO"),
    *("INPUT.CACHE_MB", "DATALOADER.TRAIN_X.BATCH_SIZE", "DATALOADER.TEST.BATCH_SIZE", "DATALOADER.NUM_WORKERS"),
    *("MODEL.BACKBONE.TRUST_JIT", "MODEL.BACKBONE.FROZEN_STAGES", "OPTIM.LR", "OPTIM.MOMENTUM", "OPTIM.WEIGHT_DECAY"),
    *("TRAIN.MICRO_BATCH", "TRAIN.COMPILE"),
)


@dataclass(frozen=True)
class Kind:
    """A method that can be run without Dassl.

    Attributes:
        trainer: Its name in configs and results.
        settings: What it declares.
        make: The method.
    """

    trainer: str
    settings: type
    make: Any

    @property
    def section(self) -> str:
        """Full name of its section."""
        return f"TRAINER.{self.trainer.upper()}"


METHODS = {"coft": Kind("CoFT", CoFTSettings, CoFT), "coft+": Kind("CoFTPlus", CoFTPlusSettings, CoFTPlus)}


class Config(SimpleNamespace):
    """Settings by name, sections within sections, as attributes."""

    def get(self, name: str, default: Any = None) -> Any:
        """A setting, or what to take where there is none."""
        return getattr(self, name, default)

    def items(self) -> Any:
        """Names and values."""
        return vars(self).items()

    def tree(self) -> dict[str, Any]:
        """Nested dictionaries, with a list for a tuple."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in self.items()}
        return {name: value.tree() if isinstance(value, Config) else value for name, value in plain.items()}

    def dump(self) -> str:
        """YAML."""
        return str(yaml.safe_dump(self.tree()))


def kind_of(method: str) -> Kind:
    """A method by its name.

    Raises:
        UserError: If there is no such method.
    """
    if method not in METHODS:
        raise UserError(f"method is {method!r}; {did_you_mean(str(method), METHODS)}")
    return METHODS[method]


def python_name(name: str, section: str) -> str:
    """A setting as Python writes it; those of the method go without their section."""
    return name.removeprefix(f"{section}.").replace(".", "__").lower()


def declared(kind: Kind) -> dict[str, Key]:
    """All settings of a run, by full name."""
    found = {name: key for section, cls in SECTIONS.items() for name, key in keys(cls, section).items()}
    return found | keys(kind.settings, kind.section)


def known(kind: Kind) -> dict[str, Key]:
    """Settings that a user may give, by their names in Python; each Key has its full name."""
    return {
        python_name(name, kind.section): key
        for name, key in declared(kind).items()
        if name in READ or name.startswith(f"{kind.section}.")
    }


def parse(kind: Kind, name: str, text: str) -> Any:
    """What a text says that a user wrote for a setting.

    Raises:
        UserError: If there is no such setting.
    """
    return evaluated(_key(kind, name), text)


def _key(kind: Kind, name: str) -> Key:
    names = known(kind)
    if name not in names:
        raise UserError(f"unknown setting {name!r}; {did_you_mean(name, names)}")
    return names[name]


def settle(kind: Kind, backbone: str, seed: int, output: str, given: Mapping[str, Any]) -> Any:
    """All settings of a run.

    Args:
        kind: The method.
        backbone: Name of the CLIP.
        seed: Of everything random.
        output: Folder of the results, or "".
        given: What the user gave, by its names in Python.

    Returns:
        A config, complete: what follows the backbone and the machine is filled in.

    Raises:
        UserError: On an unknown name, a value that a setting does not take, or an unknown backbone.
    """
    everything = declared(kind)
    own = {_key(kind, name).name: checked(replace(_key(kind, name), name=name), x) for name, x in given.items()}
    file = trainer_config(kind.trainer, backbone, own.get("MODEL.BACKBONE.TRUST_JIT", False))
    of_file = flatten(read_config("configs", str(file))) if file else {}
    values = {name: key.default for name, key in everything.items()}
    values |= {n: checked(everything[n], evaluated(everything[n], x)) for n, x in of_file.items() if n in everything}
    values |= own
    values |= {"TRAINER.NAME": kind.trainer, "MODEL.BACKBONE.NAME": backbone, "DATASET.NAME": "Folder"}
    values |= {"SEED": checked(replace(everything["SEED"], name="seed"), seed), "OUTPUT_DIR": output}
    cfg = _nested(values)
    follow_backbone(cfg)
    section = getattr(cfg.TRAINER, kind.trainer.upper())
    check_light_module(section.VISUAL, "visual")
    section.PREC = faster(cfg) if section.PREC == AUTO else section.PREC
    cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, os.cpu_count() or 1)
    return cfg


def settings_of(kind: Kind, cfg: Any) -> Any:
    """The method's own settings of a config.

    Raises:
        UserError: If they do not go together.
    """
    return load(kind.settings, getattr(cfg.TRAINER, kind.trainer.upper()), kind.section)


def _nested(values: Mapping[str, Any]) -> Config:
    root = Config()
    for name, value in values.items():
        *above, leaf = name.split(".")
        node = root
        for part in above:
            if not hasattr(node, part):
                setattr(node, part, Config())
            node = getattr(node, part)
        setattr(node, leaf, value)
    return root
