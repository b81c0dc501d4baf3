"""Which settings class declares which section of the config: the one place that all of it is made of.

`SECTIONS` has the sections below TRAINER, by name. A trainer is entered there when its class is made.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from yacs.config import CfgNode

from coft.core.experiment import flatten
from coft.core.settings import Key, defaults, implied, join, keys, load
from coft.engine.data_settings import Dataloader, Input
from coft.engine.run_settings import Model, Optim, Root, Test, Train, Trainer

from .data_settings import Dataset

GENERAL: dict[str, type] = {
    "": Root,
    "INPUT": Input,
    "DATASET": Dataset,
    "DATALOADER": Dataloader,
    "MODEL": Model,
    "OPTIM": Optim,
    "TRAIN": Train,
    "TEST": Test,
    "TRAINER": Trainer,
}
SECTIONS: dict[str, type] = {}  # of the trainers: `MethodTrainer` enters them


def declared() -> dict[str, type]:
    """All settings classes, by the full name of their section."""
    return GENERAL | {f"TRAINER.{name}": cls for name, cls in SECTIONS.items()}


def node_of(cfg: Any, section: str) -> Any:
    """Section of a config by its full name; the root's is empty."""
    return reduce(lambda node, part: node[part], section.split(".") if section else [], cfg)


def add_general(cfg: Any) -> None:
    """Put the defaults of all general sections into Dassl's config; what else is there stays."""
    for section, cls in GENERAL.items():
        _fill(node_of(cfg, section), defaults(cls))


def add_trainers(cfg: Any) -> None:
    """Put the sections of `SECTIONS` into a config, in the place of what is there under these names."""
    for name, cls in SECTIONS.items():
        cfg.TRAINER[name] = CfgNode(defaults(cls))


def _fill(node: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            node.setdefault(key, CfgNode())
            _fill(node[key], value)
        else:  # Dassl has lists in some places, and who knows who relies on that
            node[key] = list(value) if isinstance(node.get(key), list) else value


def known_keys(cfg: Any) -> dict[str, Key]:
    """What there is to set in a config, by full name; what nobody declared has the type of its default."""
    found: dict[str, Key] = {}
    for section, cls in declared().items():
        found |= keys(cls, section)
    return {name: found.get(name) or implied(name, value) for name, value in flatten(cfg).items()}


def section_names(cfg: Any, prefix: str = "") -> list[str]:
    """Full names of all sections of a config but the root."""
    below = {join(prefix, name): node for name, node in cfg.items() if isinstance(node, dict)}
    return [part for name, node in below.items() for part in (name, *section_names(node, name))]


def check_sections(cfg: Any) -> None:
    """Check every declared section of a config.

    Raises:
        UserError: Naming the key.
    """
    for section, cls in declared().items():
        if section.rpartition(".")[2] in node_of(cfg, section.rpartition(".")[0]) or not section:
            load(cls, node_of(cfg, section), section, others=section in GENERAL)
