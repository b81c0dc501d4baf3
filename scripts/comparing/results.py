"""Results of runs as table rows, read from their summary.json."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coft.core.errors import UserError
from coft.core.sanitize import has_controls
from coft.core.untrusted import read_table

from .methods import method_name
from .plan import SUMMARY, Run, digest, read_summary, settings_of
from .statistics import OPTIONAL, STAGES

PEERS = ("peer_a", "peer_b")
TEXTS = ("dataset", "backbone", "method", "trainer")  # columns of a list of results
# settings that choose the test images
TEST_KEYS = (
    *("DATASET.NUM_TEST", "DATASET.SUBSAMPLE_CLASSES", "DATASET.DOMAIN", "DATASET.SOURCE_DOMAINS"),
    *("DATASET.TARGET_DOMAINS", "TEST.SPLIT"),
)
SHOWN_SETTINGS = 3  # largest number of different settings that are written out in a method's name
Row = dict[str, Any]
Settings = dict[str, Any]
log = logging.getLogger(__name__)


def rows_of_runs(runs: Iterable[Run]) -> pd.DataFrame:
    """Return results of those planned runs that are finished, named by their methods."""
    rows: list[Row] = []
    for run in runs:
        if summary := run.summary():
            rows += [{**row, "variant": run.method.name} for row in summary_rows(summary, run.folder, run.method.name)]
    return pd.DataFrame(rows)


def rows_of_folders(folders: Sequence[Path]) -> pd.DataFrame:
    """Return results of all runs below some folders.

    If runs of the same method have different settings, the differences are added to the method's name.
    """
    rows: list[tuple[Row, Settings]] = []
    for folder in folders:
        for path in sorted(folder.rglob(SUMMARY)):
            if summary := read_summary(path.parent):
                rows += _rows_of(summary, path.parent)
            else:
                log.warning("%s: is no summary of a run; left out", path)
    return pd.DataFrame(_with_differences(rows))


def rows_of_list(path: Path) -> pd.DataFrame:
    """Read results from a list in the format of a comparison's runs.csv.

    Raises:
        UserError: If the file is not such a list.
    """
    try:
        rows: pd.DataFrame = read_table(path, encoding_errors="strict")
        if missing := [name for name in (*TEXTS, "seed", "accuracy") if name not in rows]:
            raise ValueError(f"no column {', '.join(missing)}")
        if (rows[list(TEXTS)] == "").any(axis=None):
            raise ValueError(f"a line without {', '.join(TEXTS[:-1])} or {TEXTS[-1]}")
        numbers = ("seed", "accuracy", *OPTIONAL)
        rows = rows.assign(**{name: pd.to_numeric(rows[name]) for name in numbers if name in rows})
        if not (rows["seed"] % 1 == 0).all():
            raise ValueError("a seed that is no whole number")
        if not rows["accuracy"].between(0, 100).all():
            raise ValueError("a line without an accuracy")
        if any(has_controls(str(text)) for name in TEXTS for text in rows[name]):
            raise ValueError("a name with control characters")
        if "folder" in rows:
            rows["folder"] = rows["folder"].where(rows["folder"] != "")
        return rows
    except ValueError as error:  # includes pandas's errors and decoding errors
        reason = " ".join(str(error).split())  # pandas's messages have several lines
        raise UserError(f"{path} is no table of results ({reason}); give a runs.csv that compare.sh wrote") from error


def read_places(places: Sequence[Path]) -> pd.DataFrame:
    """Return results below folders or in lists, each run once, sorted by data set, backbone and mean.

    Raises:
        UserError: If a path does not exist, or there are no results.
    """
    for place in places:
        if not place.exists():
            raise UserError(f"{place}: no such folder or list of results; check the path")
    tables = [rows_of_folders([place for place in places if not place.is_file()])]
    tables += [rows_of_list(place) for place in places if place.is_file()]
    rows = pd.concat([table for table in tables if not table.empty] or tables[:1], ignore_index=True)
    if rows.empty:
        names = ", ".join(map(str, places))
        raise UserError(f"no summary.json of a finished run below {names}; run a trainer first")
    if {"folder", "stage"} <= set(rows):  # other lists have no columns by which duplicates are found
        folders = rows["folder"].map(lambda folder: str(Path(folder).resolve()), na_action="ignore")
        rows = rows[~(rows.assign(folder=folders).duplicated(["folder", "stage"]) & folders.notna())]
    means = rows.groupby(["dataset", "backbone", "method"])["accuracy"].transform("mean")
    return rows.assign(mean=means).sort_values(["dataset", "backbone", "mean"]).drop(columns="mean")


# ---------------------------------------------------------------- summary.json


def _rows_of(summary: Row, place: Path) -> list[tuple[Row, Settings]]:
    try:
        settings = {key: value for key, value in settings_of(summary).items() if key != "SEED"}
        tested = " ".join(f"{key}={settings[key]}" for key in TEST_KEYS if key in settings)
        return [({**row, "tested": tested}, settings) for row in summary_rows(summary, place)]
    except KeyError as error:
        log.warning("%s: no key %s, as results of a run have; left out", place / SUMMARY, error)
        return []


def summary_rows(summary: Row, folder: Path, method: str | None = None) -> list[Row]:
    """Return the rows of a run: its test accuracy, for trainers with phases one per phase; none if it is unknown."""
    name = method or method_name(summary["trainer"], summary.get("shots", -1))
    common: Row = {key: summary[key] for key in ("dataset", "backbone")}
    common |= {"method": name, "trainer": summary["trainer"], "seed": summary["seed"], "stage": "end"}
    results = summary["results"]
    tail = {key: summary.get(key) for key in ("ensemble", "labels_used")} | {"folder": str(folder)}
    stages = [stage for stage in STAGES if "accuracy_both" in results.get(stage, {})]
    if stages:
        return [
            {**common, "method": f"{name}, {stage}", **_stage_row(stage, results[stage]), **tail} for stage in stages
        ]
    if "accuracy_test" in results:
        return [{**common, "accuracy": results["accuracy_test"], "seconds": summary["seconds"], **tail}]
    log.warning("%s: images without labels have no accuracy, left out", folder)
    return []


def _stage_row(stage: str, numbers: Row) -> Row:
    """Return the numbers after a phase: accuracy of both peers and of each, then all numbers about pseudo-labels."""
    common = {"stage": stage, "accuracy": numbers["accuracy_both"], "seconds": numbers["seconds"]}
    accuracies = {peer: numbers[f"accuracy_{peer}"] for peer in PEERS if f"accuracy_{peer}" in numbers}
    done = {"accuracy_both", "stage", "epoch", "seconds", *(f"accuracy_{peer}" for peer in PEERS)}
    return common | accuracies | {key: value for key, value in numbers.items() if key not in done}


# ---------------------------------------------------------------- settings that differ


def _with_differences(rows: Sequence[tuple[Row, Settings]]) -> list[Row]:
    """Return the rows, with what differs in their settings from the usual ones in the methods' names."""
    groups: dict[tuple[str, ...], list[Settings]] = defaultdict(list)
    for row, settings in rows:
        groups[_group(row)].append(settings)
    return [{**row, "method": row["method"] + _difference(settings, groups[_group(row)])} for row, settings in rows]


def _group(row: Row) -> tuple[str, ...]:
    return row["dataset"], row["backbone"], row["method"]


def _difference(settings: Settings, others: Sequence[Settings]) -> str:
    """Return a suffix for a method's name: the settings in which a run differs from the most frequent of its group."""
    digests = [digest(other) for other in others]
    usual = others[digests.index(Counter(digests).most_common(1)[0][0])]
    keys = [key for key in sorted(settings.keys() | usual.keys()) if settings.get(key) != usual.get(key)]
    if len(keys) > SHOWN_SETTINGS:
        return f" [{digest(settings)[:6]}]"
    return "".join(f" {key}={settings.get(key, '-')}" for key in keys)
