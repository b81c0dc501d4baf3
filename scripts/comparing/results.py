"""Accuracies of runs, one line each, from what they left in their folders."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coft.core.errors import UserError

from .logs import logged_labels, parse_log
from .methods import method_name, rival
from .plan import SUMMARY, Run, digest, read_summary, settings_of
from .statistics import OPTIONAL

STAGES = ("after Phase I", "after Phase II")
PEERS = ("peer_a", "peer_b")
NEEDED = ("dataset", "backbone", "method", "trainer", "seed", "accuracy")  # columns of a list of results
OF_DATASETS = ("DATASET.", "INPUT.")  # settings that follow from the data set
SHOWN_SETTINGS = 3  # so many that differ are written out in a method's name
Row = dict[str, Any]
log = logging.getLogger(__name__)


def planned_rows(runs: Iterable[Run]) -> pd.DataFrame:
    """Results of the finished ones of planned runs, named by their methods."""
    rows: list[Row] = []
    for run in runs:
        summary = run.summary()
        if summary:
            rows += [{**row, "variant": run.method.name} for row in summary_rows(summary, run.folder, run.method.name)]
    return pd.DataFrame(rows)


def found_rows(folders: Sequence[Path]) -> pd.DataFrame:
    """Results of all runs below some folders: ours by summary.json, those of other Dassl plugins by log.txt.

    Runs that would have one name though their settings differ get the settings into their names.
    """
    rows: list[tuple[Row, dict[str, Any]]] = []
    for folder in folders:
        for place in sorted({path.parent for name in (SUMMARY, "log.txt") for path in folder.rglob(name)}):
            summary = read_summary(place)
            if summary:
                rows += _rows_of(summary, place)
            elif parsed := parse_log(place, folder):
                rows.append(parsed)
    named = _named_apart(rows)
    _warn_of_mixtures([(row, settings) for row, (_, settings) in zip(named, rows, strict=True)])
    return pd.DataFrame(named)


def _rows_of(summary: dict[str, Any], place: Path) -> list[tuple[Row, dict[str, Any]]]:
    try:
        settings = {key: value for key, value in settings_of(summary).items() if key != "SEED"}
        return [(row, settings) for row in summary_rows(summary, place)]
    except KeyError as error:
        log.warning("%s: no key %s, as results of a run have; left out", place / SUMMARY, error)
        return []


def listed_rows(path: Path) -> pd.DataFrame:
    """Results that a file lists as runs.csv of a comparison does.

    Raises:
        UserError: If it is no such list.
    """
    try:
        rows = pd.read_csv(path, dtype=dict.fromkeys(NEEDED[:4], str))
    except ValueError as error:  # pandas's errors and those of decoding are such
        reason = " ".join(str(error).split())  # pandas's messages have several lines
        raise UserError(f"{path} is no table of results ({reason}); give a runs.csv that compare.sh wrote") from error
    missing = [name for name in NEEDED if name not in rows]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}; give a runs.csv that compare.sh wrote")
    numbers = {"accuracy": _numbers_of(rows, "accuracy", path, "a percentage")}
    numbers |= {name: _numbers_of(rows, name, path, "a number, or nothing") for name in OPTIONAL if name in rows}
    return rows.assign(**numbers)


def _numbers_of(rows: pd.DataFrame, name: str, path: Path, expected: str) -> pd.Series:
    numbers = pd.to_numeric(rows[name], errors="coerce")
    wrong = numbers.isna() & (rows[name].notna() | (name in NEEDED))
    if wrong.any():
        first = int(wrong.to_numpy().argmax())
        raise UserError(f"{path}, result {first + 1}: {name} is '{rows[name].iloc[first]}'; expected {expected}")
    return numbers


def summary_rows(summary: Row, folder: Path, method: str | None = None) -> list[Row]:
    """Lines of one run: its test accuracy, or for trainers with phases one after each; none where none is known."""
    name = method or method_name(summary["trainer"], summary.get("shots", -1))
    common: Row = {key: summary[key] for key in ("dataset", "backbone")}
    common |= {"method": name, "trainer": summary["trainer"], "seed": summary["seed"], "stage": "end"}
    results = summary["results"]
    tail = {"ensemble": ensemble_of(summary), "labels_used": labels_of(summary, folder), "folder": str(folder)}
    stages = [stage for stage in STAGES if "accuracy_both" in results.get(stage, {})]
    if not stages and "accuracy_test" not in results:
        log.warning("%s: images without labels have no accuracy, left out", folder)
        return []
    if not stages:
        return [{**common, "accuracy": results["accuracy_test"], "seconds": summary["seconds"], **tail}]
    return [{**common, "method": f"{name}, {stage}", **_stage_row(stage, results[stage]), **tail} for stage in stages]


def _stage_row(stage: str, numbers: Row) -> Row:
    """Numbers after a phase: accuracy of both peers and of each, then all numbers of the pseudo-labels."""
    accuracies = {peer: numbers[f"accuracy_{peer}"] for peer in PEERS if f"accuracy_{peer}" in numbers}
    done = {"accuracy_both", "stage", "epoch", "seconds", *(f"accuracy_{peer}" for peer in PEERS)}
    more = {key: value for key, value in numbers.items() if key not in done}
    common = {"stage": stage, "accuracy": numbers["accuracy_both"], "seconds": numbers["seconds"]}
    return common | accuracies | more


def ensemble_of(summary: Row) -> int:
    """Number of models whose predictions are averaged: as the summary says, else two where it has two peers."""
    stages = (numbers for numbers in summary["results"].values() if isinstance(numbers, dict))
    peers = max((sum(f"accuracy_{peer}" in numbers for peer in PEERS) for numbers in stages), default=0)
    return int(summary.get("ensemble") or peers or 1)


def labels_of(summary: Row, folder: Path) -> int | None:
    """Number of images whose labels were read: as the summary says, else the training images in the log."""
    if summary.get("labels_used") is not None:
        return int(summary["labels_used"])
    known = rival(summary["trainer"])
    if known is None:
        return None
    return 0 if known.label_free else logged_labels(folder)


def _named_apart(rows: Sequence[tuple[Row, dict[str, Any]]]) -> list[Row]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row, settings in rows:
        groups.setdefault(_group(row), []).append(settings)
    return [{**row, "method": row["method"] + _difference(settings, groups[_group(row)])} for row, settings in rows]


def _warn_of_mixtures(rows: Sequence[tuple[Row, dict[str, Any]]]) -> None:
    """Say where a method has other settings on one data set than on another: tables average over data sets."""
    values: dict[tuple[str, str], dict[str, set[str]]] = {}
    for row, settings in rows:
        seen = values.setdefault((row["method"], row["backbone"]), {})
        for key, value in settings.items():
            if not key.startswith(OF_DATASETS):
                seen.setdefault(key, set()).add(str(value))
    for (method, backbone), seen in values.items():
        if mixed := sorted(key for key, found in seen.items() if len(found) > 1):
            more = f" and {len(mixed) - SHOWN_SETTINGS} more" if len(mixed) > SHOWN_SETTINGS else ""
            shown = ", ".join(mixed[:SHOWN_SETTINGS])
            log.warning("%s, %s: data sets differ in %s%s; so do their results", method, backbone, shown, more)


def _group(row: Row) -> tuple[Any, ...]:
    return row["dataset"], row["backbone"], row["method"]


def _difference(settings: dict[str, Any], others: Sequence[dict[str, Any]]) -> str:
    """Settings in which a run differs from the most frequent ones of its group, for its name."""
    counts = Counter(map(digest, others))
    if len(counts) == 1:
        return ""
    usual = next(other for other in others if digest(other) == counts.most_common(1)[0][0])
    keys = [key for key in sorted(settings.keys() | usual.keys()) if settings.get(key) != usual.get(key)]
    if len(keys) > SHOWN_SETTINGS:
        return f" [{digest(settings)[:6]}]"
    return "".join(f" {key}={settings.get(key, '-')}" for key in keys)
