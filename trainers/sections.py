"""Keys of a config: the declared settings of the run and of the trainers, besides Dassl's own keys."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from coft.core.run_settings import RUN_KEYS, Root
from coft.core.settings import Key, flatten, implied, keys, load

SECTIONS: dict[str, type] = {}  # settings class of each section TRAINER.NAME, by NAME; `MethodTrainer` adds them


def declared() -> dict[str, Key]:
    """Return all declared settings, by full name."""
    of_trainers = [keys(cls, f"TRAINER.{name}") for name, cls in SECTIONS.items()]
    return RUN_KEYS | {name: key for section in of_trainers for name, key in section.items()}


def known_keys(cfg: Any) -> dict[str, Key]:
    """Return all keys of a config, by full name. An undeclared key has the type of its default."""
    keys_of_ours = declared()
    return {name: keys_of_ours.get(name) or implied(name, value) for name, value in flatten(cfg).items()}


def extend_cfg(cfg: Any) -> None:
    """Add the project's keys to Dassl's config. Must be called before any file is merged.

    INPUT.SIZE, PIXEL_MEAN, PIXEL_STD and INTERPOLATION become empty, which means that they follow the backbone. The
    section of a trainer replaces an existing one of the same name.
    """
    for name in SECTIONS:
        cfg.TRAINER[name] = CfgNode()
    for name, key in declared().items():
        put(cfg, name, key.default)


def put(cfg: Any, name: str, value: Any) -> None:
    """Set a key of a config by its full name, and create missing sections."""
    *above, leaf = name.split(".")
    node = cfg
    for part in above:
        node = node.setdefault(part, CfgNode())
    node[leaf] = list(value) if isinstance(node.get(leaf), list) else value  # other code may rely on Dassl's lists


def check_together(cfg: Any) -> None:
    """Check a config as a whole: each value, and the consistency of the settings.

    Raises:
        SettingError: On the first invalid or inconsistent value, naming the key.
    """
    values = flatten(cfg)
    load(Root, values)
    for name, cls in SECTIONS.items():
        load(cls, values, f"TRAINER.{name}")
