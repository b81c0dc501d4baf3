"""Which runs a comparison needs, and in which folders they are or will be."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from clip import clip

import train
import trainers
from coft.backbones.load import fingerprint, load_clip
from coft.backbones.open_clip_names import is_open_clips, local_path
from coft.core.errors import UserError, did_you_mean
from coft.core.experiment import FREE_KEYS, flatten, saved_config
from dassl.engine import TRAINER_REGISTRY
from scripts import launch
from trainers.config import make_cfg

from .methods import Method, Settings, known_keys

SUMMARY = "summary.json"
log = logging.getLogger(__name__)
Config = dict[str, Any]
Folders = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class Grid:
    """All combinations that every method is run on.

    Attributes:
        datasets: Names of configs in configs/datasets.
        seeds: Seeds.
        backbones: Backbones; None is the data set's default.
        data: Folder of all data sets.
        output: Folder below which runs are kept.
        settings: Keys and values for all runs whose trainer has them.
    """

    datasets: Sequence[str]
    seeds: Sequence[int]
    backbones: Sequence[str | None] = (None,)
    data: str = "data"
    output: Path = Path("output")
    settings: Settings = ()

    def points(self, methods: Sequence[Method]) -> Iterator[tuple[Method, str | None, str, int]]:
        """Method, backbone, data set and seed of all runs, a backbone after the other: its file is read once."""
        for backbone, dataset, method in itertools.product(self.backbones, self.datasets, methods):
            for seed in self.seeds if method.seeded else self.seeds[:1]:
                yield method, backbone, dataset, seed


@dataclass(frozen=True)
class Run:
    """One run of train.py.

    Attributes:
        method: The row that it counts for.
        dataset: Name of the data set's config.
        backbone: Name of the backbone.
        seed: Seed.
        arguments: Arguments of train.py.
        folder: Its output folder.
        config: Its settings, flattened, without those that change no result.
    """

    method: Method
    dataset: str
    backbone: str
    seed: int
    arguments: tuple[str, ...] = field(repr=False)
    folder: Path
    config: Config = field(repr=False, hash=False)

    @property
    def title(self) -> str:
        """The run in a few words."""
        return f"{self.method.name} on {self.dataset}, {self.backbone}, seed {self.seed}"

    def summary(self) -> Config | None:
        """Summary of the finished run; None while it is not finished."""
        summary = read_summary(self.folder)
        return summary if summary and is_of(summary, self.config, self.backbone) else None


def read_summary(folder: Path) -> Config | None:
    """What summary.json of a folder says; None where there is none that can be read."""
    try:
        return dict(json.loads((folder / SUMMARY).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def is_of(summary: Config, config: Config, backbone: str) -> bool:
    """Whether a summary is that of a run with this config, and with the weights that the backbone has now."""
    pinned = weights_of(backbone)
    return settings_of(summary) == config and pinned in (None, summary.get("backbone_fingerprint"))


def settings_of(summary: Config) -> Config:
    """Settings that a summary was made with, without those that change no result; empty if it does not say."""
    return essential(flatten(parse_yaml(summary.get("config", "")) or {}))


def essential(flat: Config) -> Config:
    """Flattened settings without those that change no result."""
    return {key: value for key, value in flat.items() if key not in FREE_KEYS}


def parse_yaml(text: str) -> Any:
    """Parse YAML, with libyaml where PyYAML has it: there are hundreds of configs to read."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@lru_cache
def weights_of(backbone: str) -> str | None:
    """Fingerprint of a backbone's weights; None for OpenAI's and those of open_clip's registry, named once for all."""
    published = backbone in clip.available_models() or (is_open_clips(backbone) and local_path(backbone) is None)
    return None if published else fingerprint(load_clip(backbone))


def digest(config: Config) -> str:
    """Hash of settings."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def finished_folders(output: Path) -> Folders:
    """Folders of all finished runs below a folder, by the digest of their settings."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(output.rglob(SUMMARY)):
        summary = read_summary(path.parent)
        if summary:
            found[digest(settings_of(summary))].append(path.parent)
    return found


def plan(methods: Sequence[Method], grid: Grid) -> list[Run]:
    """Plan all runs: for each backbone, data set, and method, one with each seed.

    Raises:
        UserError: On a mistake in any of them, and on settings that none of them has.
    """
    finished = finished_folders(grid.output)
    untaken = {key for key, _ in grid.settings}
    takers: dict[str, dict[str, None]] = {key: {} for key in untaken}  # as a set that keeps its order
    if unknown := sorted(untaken - known_keys()):
        raise UserError(f"unknown config key {unknown[0]!r}; {did_you_mean(unknown[0], known_keys())}")
    runs = []
    for method, backbone, dataset, seed in grid.points(methods):
        run = plan_run(method, backbone, dataset, seed, grid, finished)
        untaken -= run.config.keys()
        for key in takers.keys() & run.config.keys():
            takers[key][method.trainer] = None
        runs.append(run)
    if untaken:
        raise UserError(f"{min(untaken)}: none of the trainers that are compared has this key; leave it out")
    for key, value in grid.settings:
        if len(takers[key]) < len({method.trainer for method in methods}):
            log.warning("%s %s is for %s alone; others have no such key", key, value, ", ".join(takers[key]))
    return runs


def plan_run(
    method: Method, backbone: str | None, dataset: str, seed: int, grid: Grid, finished: Folders | None = None
) -> Run:
    """Plan one run.

    Args:
        method: Trainer and settings.
        backbone: Backbone; None is the data set's default.
        dataset: Name of the data set's config.
        seed: Seed.
        grid: For its data, output and settings.
        finished: Folders of finished runs.
    """
    words = [dataset, "--seed", str(seed), "--data", grid.data]
    words += ["--backbone", backbone] if backbone else []
    words += ["--shots", str(method.shots)] if method.shots else []
    has = make_config(method.trainer, words)[1] if grid.settings else {}
    taken = [pair for pair in grid.settings if pair[0] in has]
    arguments, config = make_config(
        method.trainer, [*words, *(part for pair in (*taken, *method.settings) for part in pair)]
    )
    place = arguments.index("--output-dir") + 1
    name = config["MODEL.BACKBONE.NAME"]
    canonical = grid.output / Path(arguments[place]).relative_to("output")
    folder = settle_folder(canonical, config, name, (finished or {}).get(digest(config), ()))
    arguments[place] = str(folder)
    return Run(method, dataset, name, seed, tuple(arguments), folder, config)


def make_config(trainer: str, words: Sequence[str]) -> tuple[list[str], Config]:
    """Arguments of train.py for those of a trainer's script, and the settings that come of them.

    Raises:
        UserError: If the trainer would refuse a setting: better now than after hours of other runs.
    """
    arguments = launch.train_arguments(trainer, launch.parse(trainer, words))
    cfg = make_cfg(train.make_parser().parse_args(arguments), trainers.extend_cfg)
    kind = trainer_class(trainer)
    kind.check_cfg(object.__new__(kind), cfg)  # Dassl calls it before anything is built
    return arguments, essential(flatten(parse_yaml(cfg.dump())))


def trainer_class(trainer: str) -> Any:
    """The class of a trainer."""
    return TRAINER_REGISTRY.get(trainer)


def settle_folder(canonical: Path, config: Config, backbone: str, finished: Sequence[Path]) -> Path:
    """Choose a run's folder: where it is finished, else where the trainer's script would put it.

    Where that holds another experiment, a folder beside it, whose name follows from the settings.
    """
    for folder in sorted(finished, key=lambda path: path != canonical):
        summary = read_summary(folder)
        if summary and is_of(summary, config, backbone):
            return folder
    if is_free_for(canonical, config):
        return canonical
    return canonical.with_name(f"{canonical.name}-{digest({**config, 'weights': weights_of(backbone)})[:8]}")


def is_free_for(folder: Path, config: Config) -> bool:
    """Whether a folder holds nothing, or an unfinished run with these settings."""
    saved = saved_config(folder)
    if (folder / SUMMARY).exists():
        return False
    if saved is None:
        return not (folder / "log.txt").exists() and not any(folder.glob("*/checkpoint"))
    return essential(saved) == config
