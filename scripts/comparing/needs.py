"""Check that this machine has the weights and data sets of a benchmark, and name the commands that get missing ones."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from clip import clip

import datasets  # noqa: F401 - registers data sets, which are the subclasses of their base then
from coft.backbones.load import check_openai, fetch_openai, openai_file, openai_url
from coft.core.errors import UserError
from coft.core.untrusted import read_json
from datasets.annotations import read_lines
from datasets.benchmark import SplitDataset
from datasets.folders import first_folder
from datasets.splits import is_made_here
from scripts.get_data import is_present
from scripts.getting.sources import ORIGINS

from .benchmark import Benchmark, Facts, Unit

PARTS = ("train", "val", "test")
Counts = tuple[int, ...]


def missing_inputs(benchmark: Benchmark, data: Path, fetch: bool = False) -> dict[Unit, list[str]]:
    """Return the units that cannot be run, each with lines that say why.

    Args:
        benchmark: Benchmark to check. Only data sets in its `sets` are checked.
        data: Folder of all data sets.
        fetch: Whether to download missing weights.
    """
    weights = {name: missing_weights(name, fetch) for name in dict.fromkeys(u.backbone for u in benchmark.units)}
    sets = {name: missing_dataset(name, facts, data) for name, facts in benchmark.sets.items()}
    problems = {unit: [weights[unit.backbone], sets.get(unit.dataset, "")] for unit in benchmark.units}
    return {unit: list(filter(None, lines)) for unit, lines in problems.items() if any(lines)}


def missing_weights(name: str, fetch: bool = False) -> str:
    """Return what is wrong with OpenAI's weights and how to fix it; empty if they are fine, or not OpenAI's."""
    if name not in clip.available_models():
        return ""
    try:
        if openai_file(name).is_file():
            check_openai(name)
        elif fetch:
            fetch_openai(name)
        else:
            words = ["curl", "--fail", "--location", "--create-dirs", "--output", str(openai_file(name))]
            return f"weights of {name} are not here: {shlex.join([*words, openai_url(name)])}"
    except UserError as error:
        return error.line
    return ""


# ---------------------------------------------------------------- data sets


def missing_dataset(name: str, facts: Facts, data: Path) -> str:
    """Return what is wrong with a data set and how to fix it; empty if it is fine.

    Args:
        name: Name of its config.
        facts: Expected numbers of images and classes.
        data: Folder of all data sets.
    """
    get = f"bash scripts/data.sh {name} --data {shlex.quote(str(data))}"
    if name not in ORIGINS:
        return ""
    if not is_present(name, data):
        steps = " (says what has to be done by hand)" if ORIGINS[name].steps else ""
        return f"data set {name} is not in {data}: {get}{steps}"
    if name == "imagenet":
        return _check_imagenet(data / "imagenet", facts)
    path = split_file(name, data)
    if path.suffix == ".json" and (not path.is_file() or is_made_here(path)):
        remove = f"rm {shlex.quote(str(path))} && " if path.is_file() else ""
        return f"data set {name} lacks CoOp's split, and another one would be generated: {remove}{get}"
    try:
        counts = counts_of(path)
    except (UserError, OSError, ValueError, KeyError, TypeError) as error:
        return f"{path} cannot be read ({error}): rm {shlex.quote(str(path))} && {get}"
    expected = facts.train, facts.val, facts.test
    if counts != expected:
        return f"{path} is another version: {_words(counts)}, expected {_words(expected)}; fetch it again: {get}"
    return ""


def _words(counts: Counts) -> str:
    return ", ".join(f"{count} {part}" for count, part in zip(counts, PARTS, strict=True))


def split_file(name: str, data: Path) -> Path:
    """Return the path of a data set's split, or of the authors' list of training images; it may not exist."""
    kind = {kind.name: kind for kind in SplitDataset.__subclasses__()}[name]
    folder = first_folder(data, [kind.dataset_dir, *kind.other_dirs])
    return (folder or data / kind.dataset_dir) / kind.split


def counts_of(path: Path) -> Counts:
    """Count training, validation and test images of a split file, or of three lists whose names differ by the part."""
    if path.suffix == ".json":
        content: Mapping[str, list[object]] = read_json(path)
        return tuple(len(content[part]) for part in PARTS)
    return tuple(len(read_lines(path.with_name(path.name.replace("train", part)))) for part in PARTS)


def _check_imagenet(folder: Path, facts: Facts) -> str:
    """Check class folders and the number of test images; counting training images takes minutes on a shared disk."""
    counts = [sum(path.is_dir() for path in (folder / "images" / part).iterdir()) for part in ("train", "val")]
    if counts != [facts.classes] * 2:
        return f"{folder}/images has {counts[0]} and {counts[1]} classes in train and val, expected {facts.classes}"
    tested = sum(1 for _ in (folder / "images" / "val").glob("*/*"))
    return "" if tested == facts.test else f"{folder}/images/val has {tested} images, expected {facts.test}"
