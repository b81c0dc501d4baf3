"""Which switches of a method are tried, as configs/ablations*.yaml lists them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from coft.backbones.load import architecture
from coft.core.errors import UserError, did_you_mean

from .methods import Method, known_keys, runnable
from .plan import Run, make_config

FULL = "full"
MEASURES = ("both", "single", "after Phase I")
FIELDS = {"name", "group", "settings", "measure", "only"}
ONLY: Mapping[str, Collection[bool]] = {"any": (True, False), "vit": (True,), "resnet": (False,)}  # of is_vit


@dataclass(frozen=True)
class Ablation:
    """A change of one switch.

    Attributes:
        method: The trainer with the change.
        group: What kind of change it is, to choose by.
        measure: What counts as its accuracy: that of both peers, the mean of single peers', or that after Phase I.
        only: Backbones that it makes sense with: any, vit, resnet.
    """

    method: Method
    group: str
    measure: str = "both"
    only: str = "any"

    def fits(self, run: Run) -> bool:
        """Whether the change makes sense with a run's backbone."""
        return architecture(run.backbone).is_vit in ONLY[self.only]


def load_ablations(path: Path) -> list[Ablation]:
    """Read a list of ablations; the unchanged method is the first.

    Raises:
        UserError: If the file is not as it should be; keys and values of settings are looked at in `missing`.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        trainer, entries = str(content["trainer"]), content["ablations"]
    except FileNotFoundError as error:
        raise UserError(f"--ablations {path}: no such file; check the path") from error
    except OSError as error:
        raise UserError(f"--ablations {path}: cannot be read ({error.strerror}); give a list of ablations") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())  # YAML's messages have several lines
        raise UserError(f"{path}: expected the keys trainer and ablations ({reason})") from error
    if not isinstance(entries, list):
        raise UserError(f"{path}: ablations should be a list of changes, not {entries!r}; mend it")
    if trainer not in runnable():
        raise UserError(f"{path}: unknown trainer {trainer!r}; {did_you_mean(trainer, runnable())}")
    ablations = [Ablation(Method(FULL, trainer), FULL)] + [_read(path, trainer, entry) for entry in entries]
    names = [ablation.method.name for ablation in ablations]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path}: two ablations are called {twice[0]!r}; rename one")
    return ablations


def _read(path: Path, trainer: str, entry: Any) -> Ablation:
    if not isinstance(entry, dict) or not {"name", "group"} <= entry.keys() <= FIELDS:
        fields = ", ".join(sorted(FIELDS))
        raise UserError(f"{path}: {entry!r} should have name, group, and of {fields} what it needs; mend it")
    measure, only = entry.get("measure", "both"), entry.get("only", "any")
    for value, known in ((measure, MEASURES), (only, ONLY)):
        if value not in known:
            raise UserError(f"{path}: {entry['name']}: {value!r}; {did_you_mean(str(value), list(known))}")
    changes = entry.get("settings", {})
    if not isinstance(changes, dict):
        raise UserError(f"{path}: {entry['name']}: settings should be KEY: VALUE, not {changes!r}; mend it")
    settings = tuple((key, str(value)) for key, value in changes.items())
    return Ablation(Method(entry["name"], trainer, settings), entry["group"], measure, only)


def missing(ablation: Ablation, keys: Collection[str] | None = None) -> str | None:
    """Why an ablation cannot be run: a key that does not exist, or a value that the trainer refuses; None if it can."""
    keys = known_keys() if keys is None else keys
    settings = ablation.method.settings
    if unknown := [key for key, _ in settings if key not in keys]:
        return f"there is no key {unknown[0]}"
    try:
        make_config(ablation.method.trainer, ["digits", *(part for pair in settings for part in pair)])
    except UserError as error:
        return error.line
    return None


def choose(ablations: list[Ablation], groups: Collection[str], rows: Collection[str] = ()) -> list[Ablation]:
    """The unchanged method and the ablations of some groups or names; all, if none is named.

    Raises:
        UserError: If there is no such group or name.
    """
    known_groups = list(dict.fromkeys(ablation.group for ablation in ablations[1:]))
    known_rows = [ablation.method.name for ablation in ablations[1:]]
    for flag, named, known in (("--groups", groups, known_groups), ("--row", rows, known_rows)):
        for name in named:
            if name not in known:
                raise UserError(f"{flag}: unknown {flag[2:].rstrip('s')} {name!r}; {did_you_mean(name, known)}")
    if not groups and not rows:
        return ablations
    return [a for a in ablations if a.group in {FULL, *groups} or a.method.name in rows]
