"""Which runs a comparison needs, in which folders they are or will be, and which of them share a Phase I."""

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
from coft.backbones.open_clip_names import is_open_clips, local_path
from coft.core.errors import UserError, did_you_mean
from coft.core.experiment import FREE_KEYS, flatten, saved_config
from coft.core.forms import LARGEST, Anything, Number, PathText, Record, Text, mapping, whole
from coft.core.outside import read_json
from coft.core.yaml_text import parse_yaml
from dassl.engine import TRAINER_REGISTRY
from scripts import launch
from trainers.config import make_cfg
from trainers.forks import phase1_difference

from .methods import FULL, Method, Settings, known_keys

SUMMARY = "summary.json"
OF_RUNS = {  # keys that a comparison sets, and by what
    **{"OUTPUT_DIR": "--output", "RESUME": "--output", "SEED": "--seeds", "DATASET.ROOT": "--data"},
    **{"DATASET.NAME": "data sets", "TRAINER.NAME": "--trainers", "MODEL.BACKBONE.NAME": "--backbones"},
}
STAGE = Record(optional={"accuracy_both": Number(0, 100), "seconds": Number(0)}, others=Anything())
FORM = Record(
    optional={
        **{"trainer": Text(), "dataset": Text(10_000), "backbone": PathText(), "seconds": Number(0)},
        **{"seed": whole(-LARGEST), "shots": whole(-1), "labels_used": whole(0), "versions": mapping(Text())},
        "results": Record(
            optional={"accuracy_test": Number(0, 100), **dict.fromkeys(("zero-shot", "phase1", "phase2"), STAGE)},
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

    def points(self, methods: Sequence[Method]) -> Iterator[tuple[Method, str | None, str, Sequence[int]]]:
        """Method, backbone, data set and seeds of all runs, a backbone after the other: its file is read once."""
        for backbone, dataset, method in itertools.product(self.backbones, self.datasets, methods):
            yield method, backbone, dataset, self.seeds if method.seeded else self.seeds[:1]


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


# ---------------------------------------------------------------- what a run left


def read_summary(folder: Path) -> Config | None:
    """What summary.json of a folder says; None where there is none, or none of a run."""
    try:
        summary: Config = read_json(folder / SUMMARY)
        FORM.check(summary)
    except (OSError, ValueError):
        return None
    return summary


def is_of(summary: Config, config: Config, backbone: str) -> bool:
    """Whether a summary is that of a run with this config, and with the weights that the backbone has now."""
    pinned = weights_of(backbone)
    return settings_of(summary) == config and pinned in (None, summary.get("backbone_fingerprint"))


def settings_of(summary: Config) -> Config:
    """Settings that a summary was made with, without those that change no result; empty if it does not say."""
    try:
        config = parse_yaml(summary.get("config", ""))
    except ValueError:
        return {}
    return essential(flatten(config)) if isinstance(config, dict) else {}


def essential(flat: Config) -> Config:
    """Flattened settings without those that change no result."""
    return {key: value for key, value in flat.items() if key not in FREE_KEYS}


@lru_cache
def weights_of(backbone: str) -> str | None:
    """Fingerprint of a backbone's weights; None for OpenAI's and those of open_clip's registry, named once for all."""
    return None if all(map(_is_published, member_names(backbone))) else fingerprint(load_clip(backbone))


def _is_published(name: str) -> bool:
    return name in clip.available_models() or (is_open_clips(name) and local_path(name) is None)


def digest(config: Config) -> str:
    """Hash of settings."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def finished_folders(output: Path) -> Folders:
    """Folders of all finished runs below a folder, by the digest of their settings."""
    folders: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(output.rglob(SUMMARY)):
        if summary := read_summary(path.parent):
            folders[digest(settings_of(summary))].append(path.parent)
    return folders


# ---------------------------------------------------------------- planning


def plan(methods: Sequence[Method], grid: Grid) -> list[Run]:
    """Plan all runs: for each backbone, data set, and method, one with each seed.

    Raises:
        UserError: On a mistake in any of them, and on settings that none of them has.
    """
    keys, finished = known_keys(), finished_folders(grid.output)
    for key, _ in itertools.chain(grid.settings, *(method.settings for method in methods)):
        if key in OF_RUNS:
            raise UserError(f"{key}: is what runs of a comparison differ by; leave it out, or give {OF_RUNS[key]}")
        if key not in keys:
            raise UserError(f"unknown config key {key!r}; {did_you_mean(key, keys)}")
    runs = [run for point in grid.points(methods) for run in _plan_seeds(*point, grid, finished)]
    for key, value in grid.settings:
        takers = dict.fromkeys(run.method.trainer for run in runs if key in run.config)
        if runs and not takers:
            raise UserError(f"{key}: none of the trainers that are compared has this key; leave it out")
        if len(takers) < len({method.trainer for method in methods}):
            log.warning("%s %s is for %s alone; others have no such key", key, value, ", ".join(takers))
    return runs


def _plan_seeds(
    method: Method, backbone: str | None, dataset: str, seeds: Sequence[int], grid: Grid, finished: Folders
) -> Iterator[Run]:
    """Plan a run with each seed; a backbone that is None is the data set's default."""
    words = [dataset, "--data", grid.data]
    words += ["--backbone", backbone] if backbone else []
    words += ["--shots", str(method.shots)] if method.shots else []
    keys = make_config(method.trainer, words).keys() if grid.settings else ()
    words += itertools.chain(*(pair for pair in grid.settings if pair[0] in keys), *method.settings)
    of_all = make_config(method.trainer, [*words, "--seed", str(max(seeds))])  # takes long; has SEED of a seed alone
    for seed in seeds:
        arguments, config = _arguments(method.trainer, [*words, "--seed", str(seed)]), {**of_all, "SEED": seed}
        place = arguments.index("--output-dir") + 1
        canonical = grid.output / Path(arguments[place]).relative_to("output")
        name = config["MODEL.BACKBONE.NAME"]
        folder = _settle_folder(canonical, config, name, finished.get(digest(config), ()))
        arguments[place] = str(folder)
        yield Run(method, dataset, name, seed, tuple(arguments), folder, config)


def make_config(trainer: str, words: Sequence[str]) -> Config:
    """The settings that come of the arguments of a trainer's script.

    Raises:
        UserError: If the trainer would refuse a setting: better now than after hours of other runs.
    """
    cfg = make_cfg(train.make_parser().parse_args(_arguments(trainer, words)), trainers.extend_cfg)
    kind = TRAINER_REGISTRY.get(trainer)
    kind.check_cfg(object.__new__(kind), cfg)  # Dassl calls it before anything is built
    return essential(flatten(parse_yaml(cfg.dump())))


def _arguments(trainer: str, words: Sequence[str]) -> list[str]:
    """Arguments of train.py for those of a trainer's script."""
    return launch.train_arguments(trainer, launch.parse(trainer, words))


def _settle_folder(canonical: Path, config: Config, backbone: str, finished: Sequence[Path]) -> Path:
    """Choose a run's folder: where it is finished, else where the trainer's script would put it.

    Where that holds another experiment, a folder beside it, whose name follows from the settings.
    """
    for folder in sorted(finished, key=lambda path: path != canonical):
        summary = read_summary(folder)
        if summary and is_of(summary, config, backbone):
            return folder
    if _is_free_for(canonical, config):
        return canonical
    return canonical.with_name(f"{canonical.name}-{digest({**config, 'weights': weights_of(backbone)})[:8]}")


def _is_free_for(folder: Path, config: Config) -> bool:
    """Whether a folder holds nothing, or an unfinished run with these settings."""
    saved = saved_config(folder)
    if (folder / SUMMARY).exists():
        return False
    if saved is None:
        return not (folder / "log.txt").exists() and not any(folder.glob("*/checkpoint"))
    return essential(saved) == config


def plan_ablations(ablations: Sequence[Method], grid: Grid) -> tuple[list[Run], list[str]]:
    """Plan the runs of all changes of a method, but those that do not go with a backbone.

    Returns:
        The runs, and a note for each change that this version cannot run, or that changes nothing.
    """
    methods, notes = [], []
    for method in ablations:
        try:
            make_config(method.trainer, ["digits", *itertools.chain(*method.settings)])
            methods.append(method)
        except UserError as error:
            notes.append(f"{method.name}: {error.line}")
    runs = [run for run in plan(methods, grid) if run.method.fits(run.backbone)]
    full = {(run.dataset, run.backbone, run.seed): run.config for run in runs if run.method.name == FULL}
    changes = [run for run in runs if run.method.name != FULL and run.method.measure == "both"]
    same = {run for run in changes if run.config == full[run.dataset, run.backbone, run.seed]}
    notes += [f"{name}: is what the full method does" for name in sorted({run.method.name for run in same})]
    return [run for run in runs if run not in same], notes


# ---------------------------------------------------------------- Phase I of another run


def arguments_with_phase1(run: Run, others: Sequence[Run]) -> tuple[str, ...]:
    """Arguments of an unfinished run, with TRAIN.PHASE1_FROM where another one has finished the same Phase I.

    The bits are the same, in a part of the time.
    """
    lender = next((other for other in others if lends_phase1(other, run)), None)
    return run.arguments if lender is None else (*run.arguments, "TRAIN.PHASE1_FROM", str(lender.folder.resolve()))


def lends_phase1(other: Run, run: Run) -> bool:
    """Whether a run is finished and has kept the Phase I that another one would make."""
    if other.folder == run.folder or not TRAINER_REGISTRY.get(run.method.trainer).spec.two_peers:
        return False
    if (other.dataset, other.backbone, other.seed) != (run.dataset, run.backbone, run.seed):
        return False
    if phase1_difference(other.config, run.config) is not None or other.summary() is None:
        return False
    return all(len(list((other.folder / peer).glob("model.pth.tar-*"))) > 1 for peer in ("peer_a", "peer_b"))
