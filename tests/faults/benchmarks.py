"""Files of comparisons: lists of results, declarations of a table, summaries of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from scripts.comparing.benchmark import SCHEMA as DECLARATION
from scripts.comparing.benchmark import read_benchmark
from scripts.comparing.list import LINE, read_list
from scripts.comparing.plan import SCHEMA as SUMMARY
from scripts.comparing.results import read_places

from .formats import Format, writing
from .mutations import ALIASES, DAMAGE, GARBAGE, LETTERS, PLACES, TWICE, by_form, flips, in_json, in_yaml, without
from .oracle import EITHER, REFUSED, Wrong
from .scene import Scene

LISTED = {
    **{"of": {"method": "CoFT"}, "seconds": 3, "images": 8, "commit": "abc", "auroc": {"first": {"softmax": 0.5}}},
    **{"pool": {"first": 50.0}, "right": {"end": "ff"}, "predicted": {"end": "0000" * 8}},
}
DECLARED = {
    "sets": {"dtd": {"title": "DTD", "classes": 47, "train": 10, "val": 0, "test": 10}},
    **{"methods": ["CoFT", {"name": "mine", "trainer": "UPL", "shots": 4, "settings": {"OPTIM.LR": 0.1}}]},
    **{"backbones": ["RN50"], "seeds": [1, 2], "settings": {"DATASET.NUM_TEST": 10}},
}


def read_results(scene: Scene, path: Path) -> None:
    """Read a list of results: as many bits and classes as images."""
    for result in read_list(path).values():
        if {len(row) for row in [*result.right.values(), *result.predicted.values()]} - {8}:
            raise Wrong("a result of other images")


def read_runs(scene: Scene, path: Path) -> None:
    """Tabulate what is below a folder."""
    rows = read_places([path.parent])
    if not rows["accuracy"].between(0, 100).all():
        raise Wrong("an accuracy that is none")


def benchmarks() -> Iterator[Format]:
    """Lists of results, declarations of a table, summaries of runs."""
    damage = DAMAGE | flips(20) | LETTERS
    listed, declared = by_form(LINE, LISTED, in_json, 200), by_form(DECLARATION, DECLARED, in_yaml, 200)
    write = writing("kept.jsonl", json.dumps(LISTED))
    refused = without(GARBAGE, "empty") | without(PLACES, "not there", "a link to nothing") | TWICE | listed[REFUSED]
    yield Format("benchmarks", "kept.jsonl", write, read_results, refused, damage | listed[EITHER])
    write = writing("mine.yaml", json.dumps(DECLARED))
    read = lambda scene, path: read_benchmark(str(path))  # noqa: E731
    refused = GARBAGE | PLACES | ALIASES | TWICE | declared[REFUSED]
    yield Format("benchmarks", "mine.yaml", write, read, refused, damage | declared[EITHER])
    summary = {
        **{"trainer": "CoFT", "dataset": "digits", "backbone": "photo", "seconds": 3.0, "seed": 1, "labels_used": 0},
        **{
            "results": {"accuracy_test": 50.0, "after Phase I": {"accuracy_both": 40.0, "seconds": 2.0}},
            "config": "SEED: 1",
        },
    }
    formed = by_form(SUMMARY, summary, in_json, 200)
    either = damage | GARBAGE | PLACES | {name: mutate for part in formed.values() for name, mutate in part.items()}
    yield Format("benchmarks", "summary.json", writing("summary.json", json.dumps(summary)), read_runs, either=either)
