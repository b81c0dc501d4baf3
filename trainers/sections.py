"""What there is to set in a config: declared settings of a run and of the trainers, and Dassl's own beside them."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from coft.core.run_settings import RUN_KEYS, Root
from coft.core.settings import Key, flatten, implied, keys, load

SECTIONS: dict[str, type] = {}  # below TRAINER, by name: `MethodTrainer` enters that of each trainer


def declared() -> dict[str, Key]:
    """All settings that are declared, by full name."""
    of_trainers = [keys(cls, f"TRAINER.{name}") for name, cls in SECTIONS.items()]
    return RUN_KEYS | {name: key for section in of_trainers for name, key in section.items()}


def known_keys(cfg: Any) -> dict[str, Key]:
    """What there is to set in a config, by full name; what nobody declared has the type of its default."""
    keys_of_ours = declared()
    return {name: keys_of_ours.get(name) or implied(name, value) for name, value in flatten(cfg).items()}


def extend_cfg(cfg: Any) -> None:
    """Add the project's keys to Dassl's config; call it before any file is merged.

    INPUT.SIZE, PIXEL_MEAN, PIXEL_STD and INTERPOLATION become empty, which means: as the backbone has them. A trainer's
    section takes the place of one that is there under its name.
    """
    for name in SECTIONS:
        cfg.TRAINER[name] = CfgNode()
    for name, key in declared().items():
        put(cfg, name, key.default)


def put(cfg: Any, name: str, value: Any) -> None:
    """Set a key of a config by its full name, and make the sections that it needs."""
    *above, leaf = name.split(".")
    node = cfg
    for part in above:
        node = node.setdefault(part, CfgNode())
    node[leaf] = list(value) if isinstance(node.get(leaf), list) else value  # who knows who relies on Dassl's lists


def check_together(cfg: Any) -> None:
    """Check a config as a whole: what each setting takes, and whether they go together.

    Raises:
        SettingError: Naming the key.
    """
    values = flatten(cfg)
    load(Root, values)
    for name, cls in SECTIONS.items():
        load(cls, values, f"TRAINER.{name}")
