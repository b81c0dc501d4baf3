"""Files of comparisons: lists of results, benchmark declarations, summaries of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from scripts.comparing.benchmark import SCHEMA as DECLARATION
from scripts.comparing.benchmark import read_benchmark
from scripts.comparing.list import LINE, read_list
from scripts.comparing.plan import SCHEMA as SUMMARY
from scripts.comparing.results import read_places

from .formats import Format, file_with, json_format
from .mutations import (
    DAMAGED_TEXT,
    DUPLICATE_KEY,
    INVALID,
    NESTED_ALIASES,
    from_form,
    json_content,
    without,
    yaml_content,
)
from .verdict import EITHER, REFUSED, WrongResult
from .workspace import Workspace

RESULT = {
    **{"of": {"method": "CoFT"}, "seconds": 3, "images": 8, "commit": "abc", "auroc": {"first": {"softmax": 0.5}}},
    **{"pool": {"first": 50.0}, "right": {"end": "ff"}, "predicted": {"end": "0000" * 8}},
}
BENCHMARK = {
    "sets": {"dtd": {"title": "DTD", "classes": 47, "train": 10, "val": 0, "test": 10}},
    **{"methods": ["CoFT", {"name": "mine", "trainer": "UPL", "shots": 4, "settings": {"OPTIM.LR": 0.1}}]},
    **{"backbones": ["RN50"], "seeds": [1, 2], "settings": {"DATASET.NUM_TEST": 10}},
}
RUN_SUMMARY = {
    **{"trainer": "CoFT", "dataset": "digits", "backbone": "photo", "seconds": 3.0, "seed": 1, "labels_used": 0},
    **{
        "results": {"accuracy_test": 50.0, "after Phase I": {"accuracy_both": 40.0, "seconds": 2.0}},
        "config": "SEED: 1",
    },
}


def read_results(workspace: Workspace, path: Path) -> None:
    """Read a list of results: each must have as many predictions as images."""
    for result in read_list(path).values():
        if {len(row) for row in [*result.right.values(), *result.predicted.values()]} - {8}:
            raise WrongResult("a result has another number of images")


def read_summaries(workspace: Workspace, path: Path) -> None:
    """Tabulate the runs in a folder."""
    if not read_places([path.parent])["accuracy"].between(0, 100).all():
        raise WrongResult("an accuracy is not between 0 and 100")


def benchmarks() -> Iterator[Format]:
    """Lists of results, benchmark declarations, summaries of runs."""
    refused = {**without(INVALID, "empty", "missing", "a dangling link"), **DUPLICATE_KEY}
    yield json_format("benchmarks", "kept.jsonl", read_results, LINE, RESULT, refused)

    refused = {**INVALID, **NESTED_ALIASES, **DUPLICATE_KEY}
    read = lambda workspace, path: read_benchmark(str(path))  # noqa: E731
    yield json_format("benchmarks", "mine.yaml", read, DECLARATION, BENCHMARK, refused, yaml_content)

    summaries = from_form(SUMMARY, RUN_SUMMARY, json_content, 200)
    either = {**INVALID, **DAMAGED_TEXT, **summaries[REFUSED], **summaries[EITHER]}
    make = file_with("summary.json", json.dumps(RUN_SUMMARY))
    yield Format("benchmarks", "summary.json", make, read_summaries, either=either)
