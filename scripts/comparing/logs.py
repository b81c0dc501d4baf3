"""Results of Dassl plugins that leave a log.txt and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from .methods import method_name

ACCURACY = re.compile(r"^\* accuracy: ([\d.]+(?:e[+-]?\d+)?)%$", re.MULTILINE)
FINISHED = re.compile(r"^Finish(?:ed)? training$", re.MULTILINE)
EPOCH = re.compile(r"^epoch \[\d+/\d+\]", re.MULTILINE)
ELAPSED = re.compile(r"^Elapsed: (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)$", re.MULTILINE)
TRAIN_X = re.compile(r"^# train_x +([\d,]+)$", re.MULTILINE)
SETTING = re.compile(r"^( *)([A-Za-z]\w*):(?: (.*))?$")
SEED_FOLDER = re.compile(r"seed_?(\d+)")
SHOTS_FOLDER = re.compile(r"(?:^|_)(?:(\d+)_?shots?|shots_(\d+))(?:_|$)")
BACKBONE = re.compile(r"rn\d+(?:x\d+)?|vit_[a-z]\d+")
# Keys that say where or how a run was made, not what it is.
PLACES = {"OUTPUT_DIR", "RESUME", "SEED", "VERBOSE", "USE_CUDA", "DATASET.ROOT", "DATALOADER.NUM_WORKERS"}


def read_log(folder: Path) -> str:
    """All logs of a folder: log.txt, then those of its continuations, whose names have the date."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("log.txt*")))


def parse_log(folder: Path, top: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Read the result of a Dassl run.

    What the log's config does not say is taken from the folders below `top`, which CoOp and its kin call
    dataset/trainer/config_shots/[more/]seedN.

    Returns:
        The result's line and the settings it was made with; None where training is not finished, or nothing was
        tested.
    """
    text = read_log(folder)
    accuracy = last_accuracy(text)
    if accuracy is None:
        return None
    settings = dict(logged_settings(text))
    row = {**_from_path(folder, top), **_from_settings(settings)}
    more = {key: value for key, value in settings.items() if key not in PLACES}
    row["method"] = method_name(row["trainer"], row.pop("shots"))
    row |= {"stage": "end", "accuracy": accuracy, "seconds": _seconds(text), "folder": str(folder)}
    return row, more or {"folder": row.pop("config")}


def last_accuracy(text: str) -> float | None:
    """Last accuracy (percent) after training, or of an evaluation alone."""
    ends = [match.end() for match in FINISHED.finditer(text)]
    if not ends and EPOCH.search(text):
        return None
    values = ACCURACY.findall(text[ends[-1] if ends else 0 :])
    return float(values[-1]) if values else None


def logged_labels(folder: Path) -> int | None:
    """Number of labelled training images that a log names."""
    counts = TRAIN_X.findall(read_log(folder))
    return int(counts[-1].replace(",", "")) if counts else None


def logged_settings(text: str) -> Iterator[tuple[str, str]]:
    """Settings of the last config that a log shows, flattened: {"A.B": "value"}."""
    _, found, shown = text.rpartition("** Config **")
    path: list[tuple[int, str]] = []
    lines = shown.lstrip("*\n").splitlines()  # CoOp frames the headline with asterisks
    for line in lines if found else ():
        setting = SETTING.match(line)
        if not setting:
            break
        indent, key, value = len(setting[1]), setting[2], setting[3]
        path = [*(parent for parent in path if parent[0] < indent), (indent, key)]
        if value is not None:
            yield ".".join(name for _, name in path), value.strip()


def _from_settings(settings: dict[str, str]) -> dict[str, Any]:
    """What of a result's line the config says."""
    row: dict[str, Any] = {}
    for key, name in (("DATASET.NAME", "dataset"), ("MODEL.BACKBONE.NAME", "backbone"), ("TRAINER.NAME", "trainer")):
        if settings.get(key):
            row[name] = settings[key]
    for key, name in (("SEED", "seed"), ("DATASET.NUM_SHOTS", "shots")):
        if settings.get(key, "-1").lstrip("-").isdigit() and int(settings.get(key, "-1")) >= 0:
            row[name] = int(settings[key])
    return row


def _from_path(folder: Path, top: Path) -> dict[str, Any]:
    """What of a result's line the names of the folders say: dataset/trainer/config_shots/[more/]seedN."""
    parts = [part for part in folder.resolve().parts if not SEED_FOLDER.fullmatch(part)]
    named = [i for i in range(2, len(parts)) if BACKBONE.match(parts[i]) or SHOTS_FOLDER.search(parts[i])]
    start = named[-1] - 2 if named else min(len(top.resolve().parts), len(parts) - 3)
    dataset, trainer, *config = ["unknown"] * -min(start, 0) + list(parts[max(start, 0) :])
    seed = SEED_FOLDER.fullmatch(folder.name)
    shots = SHOTS_FOLDER.search(config[0])
    backbone = BACKBONE.match(config[0])
    return {
        "dataset": dataset,
        "backbone": backbone[0] if backbone else "unknown",
        "trainer": trainer,
        "seed": int(seed[1]) if seed else 1,
        "shots": int(shots[1] or shots[2]) if shots else -1,
        "config": "/".join(config),
    }


def _seconds(text: str) -> float | None:
    found = ELAPSED.findall(text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found[-1])
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
