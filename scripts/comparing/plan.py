"""Planning of a comparison's runs: their settings and output folders, and the runs that share a Phase I."""

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

from clip import clip

import train
import trainers
from coft.backbones.load import fingerprint, load_clip
from coft.backbones.members import member_names
from coft.backbones.open_clip_names import is_open_clip_name, local_path
from coft.core.errors import UserError, did_you_mean
from coft.core.experiment import FREE_KEYS, flatten, saved_config
from coft.core.schemas import LARGEST, Anything, Number, PathText, Record, Text, mapping, whole
from coft.core.untrusted import read_json
from coft.core.yaml_text import parse_yaml
from dassl.engine import TRAINER_REGISTRY
from scripts import launch
from trainers.config import make_cfg
from trainers.forks import phase1_difference

from .methods import FULL, Method, Settings, config_keys
from .statistics import STAGES

SUMMARY = "summary.json"
GRID_KEYS = {  # keys that a comparison sets itself, with the flag for each
    **{"OUTPUT_DIR": "--output", "RESUME": "--output", "SEED": "--seeds", "DATASET.ROOT": "--data"},
    **{"DATASET.NAME": "data sets", "TRAINER.NAME": "--trainers", "MODEL.BACKBONE.NAME": "--backbones"},
}
STAGE = Record(optional={"accuracy_both": Number(0, 100), "seconds": Number(0)}, others=Anything())
SCHEMA = Record(
    optional={
        **{"trainer": Text(), "dataset": Text(10_000), "backbone": PathText(), "seconds": Number(0)},
        **{"seed": whole(-LARGEST), "shots": whole(-1), "labels_used": whole(0), "versions": mapping(Text())},
        "results": Record(
            optional={"accuracy_test": Number(0, 100), **dict.fromkeys(("zero-shot", *STAGES), STAGE)},
            others=Anything(),
        ),
        "config": Text(1 << 24, lines=True),
    },
    others=Anything(),
)
log = logging.getLogger(__name__)
Config = dict[str, Any]
Folders = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class Grid:
    """Grid of data sets, backbones and seeds that every method is run on.

    Attributes:
        datasets: Names of configs in configs/datasets.
        seeds: Seeds.
        backbones: Backbones; None is the data set's default.
        data: Folder of all data sets.
        output: Folder of all runs.
        settings: Keys and values for all runs whose trainer has the key.
    """

    datasets: Sequence[str]
    seeds: Sequence[int]
    backbones: Sequence[str | None] = (None,)
    data: str = "data"
    output: Path = Path("output")
    settings: Settings = ()


@dataclass(frozen=True)
class Run:
    """One run of train.py.

    Attributes:
        method: Row of the table that it belongs to.
        dataset: Name of the data set's config.
        backbone: Name of the backbone.
        seed: Random seed.
        arguments: Arguments of train.py.
        folder: Output folder.
        config: Flattened settings, without those that do not affect results.
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
        """Short title for messages."""
        return f"{self.method.name} on {self.dataset}, {self.backbone}, seed {self.seed}"

    def summary(self) -> Config | None:
        """Return the summary of the run; None while it is not finished."""
        summary = read_summary(self.folder)
        return summary if summary and matches(summary, self.config, self.backbone) else None


# ---------------------------------------------------------------- what a run left


def read_summary(folder: Path) -> Config | None:
    """Read summary.json of a folder; None if it is missing or not the summary of a run."""
    try:
        summary: Config = read_json(folder / SUMMARY)
        SCHEMA.check(summary)
    except (OSError, ValueError):
        return None
    return summary


def matches(summary: Config, config: Config, backbone: str) -> bool:
    """Return whether a summary belongs to a run with this config and the current weights of the backbone."""
    pinned = weights_of(backbone)
    return settings_of(summary) == config and pinned in (None, summary.get("backbone_fingerprint"))


def settings_of(summary: Config) -> Config:
    """Return the settings in a summary, without those that do not affect results; empty if it has none."""
    try:
        config = parse_yaml(summary.get("config", ""))
    except ValueError:
        return {}
    return essential(flatten(config)) if isinstance(config, dict) else {}


def essential(flat: Config) -> Config:
    """Drop settings that do not affect results from flattened settings."""
    return {key: value for key, value in flat.items() if key not in FREE_KEYS}


@lru_cache
def weights_of(backbone: str) -> str | None:
    """Return the fingerprint of a backbone's weights.

    It is None for weights of OpenAI and of open_clip's registry, which their names identify.
    """
    return None if all(map(_is_published, member_names(backbone))) else fingerprint(load_clip(backbone))


def _is_published(name: str) -> bool:
    return name in clip.available_models() or (is_open_clip_name(name) and local_path(name) is None)


def digest(config: Config) -> str:
    """Hash settings."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def finished_folders(output: Path) -> Folders:
    """Find the folders of all finished runs below a folder, by the digest of their settings."""
    folders: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(output.rglob(SUMMARY)):
        if summary := read_summary(path.parent):
            folders[digest(settings_of(summary))].append(path.parent)
    return folders


# ---------------------------------------------------------------- planning


def plan(methods: Sequence[Method], grid: Grid) -> list[Run]:
    """Plan all runs: one with each seed for each backbone, data set and method.

    Raises:
        UserError: If a run would have wrong settings, or no run has the key of a setting.
    """
    keys, finished = config_keys(), finished_folders(grid.output)
    for key, _ in itertools.chain(grid.settings, *(method.settings for method in methods)):
        if key in GRID_KEYS:
            raise UserError(f"{key}: is set by the comparison; leave it out, or give {GRID_KEYS[key]}")
        if key not in keys:
            raise UserError(f"unknown config key {key!r}; {did_you_mean(key, keys)}")
    points = itertools.product(grid.backbones, grid.datasets, methods)  # by backbone, so that its file is read once
    runs = [run for point in points for run in _plan_seeds(*point, grid, finished)]
    for key, value in grid.settings:
        readers = dict.fromkeys(run.method.trainer for run in runs if key in run.config)
        if runs and not readers:
            raise UserError(f"{key}: none of the trainers that are compared has this key; leave it out")
        if len(readers) < len({method.trainer for method in methods}):
            log.warning("%s %s is for %s alone; others have no such key", key, value, ", ".join(readers))
    return runs


def _plan_seeds(backbone: str | None, dataset: str, method: Method, grid: Grid, finished: Folders) -> Iterator[Run]:
    """Plan a run with each seed; a backbone that is None is the data set's default."""
    seeds = grid.seeds if method.seeded else grid.seeds[:1]
    words = [dataset, "--data", grid.data]
    words += ["--backbone", backbone] if backbone else []
    words += ["--shots", str(method.shots)] if method.shots else []
    keys = make_config(method.trainer, words).keys() if grid.settings else ()
    words += itertools.chain(*(pair for pair in grid.settings if pair[0] in keys), *method.settings)
    of_all = make_config(method.trainer, [*words, "--seed", str(max(seeds))])  # slow; only SEED differs by seed
    for seed in seeds:
        arguments, config = _arguments(method.trainer, [*words, "--seed", str(seed)]), {**of_all, "SEED": seed}
        place = arguments.index("--output-dir") + 1
        canonical = grid.output / Path(arguments[place]).relative_to("output")
        name = config["MODEL.BACKBONE.NAME"]
        folder = _choose_folder(canonical, config, name, finished.get(digest(config), ()))
        arguments[place] = str(folder)
        yield Run(method, dataset, name, seed, tuple(arguments), folder, config)


def make_config(trainer: str, words: Sequence[str]) -> Config:
    """Build the settings for arguments of a trainer's script.

    Raises:
        UserError: If the trainer would refuse a setting; this is checked before hours of other runs.
    """
    cfg = make_cfg(train.make_parser().parse_args(_arguments(trainer, words)), trainers.extend_cfg)
    kind = TRAINER_REGISTRY.get(trainer)
    kind.check_cfg(object.__new__(kind), cfg)  # as Dassl calls it, before anything is built
    return essential(flatten(parse_yaml(cfg.dump())))


def _arguments(trainer: str, words: Sequence[str]) -> list[str]:
    """Translate arguments of a trainer's script to those of train.py."""
    return launch.train_arguments(trainer, launch.parse(trainer, words))


def _choose_folder(canonical: Path, config: Config, backbone: str, finished: Sequence[Path]) -> Path:
    """Choose a run's folder: one where it is finished, else the one that the trainer's script would use.

    If the latter holds another experiment, a folder next to it is chosen, whose name is derived from the settings.
    """
    for folder in sorted(finished, key=lambda path: path != canonical):
        summary = read_summary(folder)
        if summary and matches(summary, config, backbone):
            return folder
    if _is_free(canonical, config):
        return canonical
    return canonical.with_name(f"{canonical.name}-{digest({**config, 'weights': weights_of(backbone)})[:8]}")


def _is_free(folder: Path, config: Config) -> bool:
    """Return whether a folder holds no run, or an unfinished one with these settings."""
    saved = saved_config(folder)
    if (folder / SUMMARY).exists():
        return False
    if saved is None:
        return not (folder / "log.txt").exists() and not any(folder.glob("*/checkpoint"))
    return essential(saved) == config


def plan_ablations(ablations: Sequence[Method], grid: Grid) -> tuple[list[Run], list[str]]:
    """Plan the runs of all changes of a method, except for changes that do not apply to a backbone.

    Returns:
        The runs, and a note for each change that changes nothing.
    """
    runs = [run for run in plan(ablations, grid) if run.method.fits(run.backbone)]
    full = {(run.dataset, run.backbone, run.seed): run.config for run in runs if run.method.name == FULL}
    changes = [run for run in runs if run.method.name != FULL and run.method.measure == "both"]
    same = {run for run in changes if run.config == full[run.dataset, run.backbone, run.seed]}
    notes = [f"{name}: is what the full method does" for name in sorted({run.method.name for run in same})]
    return [run for run in runs if run not in same], notes


# ---------------------------------------------------------------- Phase I of another run


def arguments_with_phase1(run: Run, others: Sequence[Run]) -> tuple[str, ...]:
    """Return the arguments of an unfinished run, with TRAIN.PHASE1_FROM if another run has finished the same Phase I.

    The results are bitwise the same, in less time.
    """
    source = next((other for other in others if has_phase1_of(other, run)), None)
    return run.arguments if source is None else (*run.arguments, "TRAIN.PHASE1_FROM", str(source.folder.resolve()))


def has_phase1_of(other: Run, run: Run) -> bool:
    """Return whether another run is finished and has kept a Phase I that is identical to the run's."""
    if other.folder == run.folder or not TRAINER_REGISTRY.get(run.method.trainer).spec.two_peers:
        return False
    if (other.dataset, other.backbone, other.seed) != (run.dataset, run.backbone, run.seed):
        return False
    if phase1_difference(other.config, run.config) is not None or other.summary() is None:
        return False
    return all(len(list((other.folder / peer).glob("model.pth.tar-*"))) > 1 for peer in ("peer_a", "peer_b"))
