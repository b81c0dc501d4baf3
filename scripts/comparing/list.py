"""List of the benchmark's results, docs/benchmark.jsonl: for each finished run, all data of the tables and intervals.

Several machines can add to a list, so that the seeds of all units need not be run on one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coft.core.errors import UserError, in_a_line
from coft.core.files import replacing
from coft.core.lock import exclusive_lock
from coft.core.schemas import Anything, Number, Record, Text, mapping, whole
from coft.core.untrusted import MAX_TABLE_BYTES, MISSING, parse_json, read_table, read_text

from .methods import Settings
from .plan import Run, weights_of

WITH_PHASE1 = ("CoFT",)  # methods with an additional row for Phase I
P_CLEAN = "p_clean"
SCORES = {P_CLEAN: "auroc_p_clean", "softmax": "auroc_confidence", "margin": "auroc_margin"}
TIMES = {"first": 0, "last": -1}  # labellings of Phase II
CALIBRATION = {"confidence": "confidence_test", "error": "calibration_error_test"}
EVEN = 0.5  # confidence below which `--unsure` without a number sets an image aside
POOL, BELIEVED = "pool_accuracy", "mean_p_clean"
SHARES = ("pool", "believed", "calibration")  # in percent
HEX = mapping(Text(1 << 28), 10)
LINE = Record(
    {
        **{"of": Record(others=Anything()), "seconds": Number(0), "images": whole(1, 10_000_000)},
        "right": Record({"end": Text(1 << 28)}, others=Text(1 << 28), most=10),
        "auroc": mapping(mapping(Number(0, 1), 10), 10),
    },
    {"commit": Text(), "predicted": HEX, **dict.fromkeys(SHARES, mapping(Number(0, 100), 10))},
)


@dataclass(frozen=True)
class Result:
    """Result of a run.

    Attributes:
        right: Whether each test image is predicted correctly, by stage ("phase1", "end"). Shape (images,) each.
        seconds: Duration of the run.
        scores: AUROCs of its pseudo-labels, by time and score.
        commit: Commit of the project at its end; empty if unknown.
        predicted: Predicted class of each test image by stage: its index in the alphabetical list of the test set's
            class names; -1 for other classes. Shape (images,) each. Empty if the line lacks it.
        pool: Percent of the unlabeled images whose label is right, by time: "zero-shot", "first", "last".
        believed: Mean p_clean of the labels of all unlabeled images, in percent, by time: "first", "last".
        calibration: Numbers on the test images, in percent: mean "confidence", expected calibration "error", the share
            that is "unsure", and the share of wrong images that is "caught" by that. Some or all may be missing.
    """

    right: Mapping[str, NDArray[np.bool_]]
    seconds: float
    scores: Mapping[tuple[str, str], float]
    commit: str = ""
    predicted: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)
    pool: Mapping[str, float] = field(default_factory=dict)
    believed: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, float] = field(default_factory=dict)


def stages(run: Run) -> list[tuple[str, str]]:
    """Return the columns of test_predictions.csv that are rows of the tables, with the titles of the rows."""
    end = [("end", run.method.name)]
    return [("phase1", f"{run.method.name}, Phase I"), *end] if run.method.name in WITH_PHASE1 else end


def read_result(run: Run) -> Result | None:
    """Read the result of a run; None while it is not finished."""
    summary, path = run.summary(), run.folder / "test_predictions.csv"
    if not summary or not path.is_file():
        return None
    table: pd.DataFrame = read_table(path)
    present = [stage for stage, _ in stages(run) if stage in table]
    names = pd.Index(sorted(set(table["class"])))
    metrics = run.folder / "metrics.csv"
    results = summary.get("results", {})
    as_numbers = {"dtype": None, "keep_default_na": True}
    rows = read_table(metrics, **as_numbers) if metrics.is_file() else pd.DataFrame(columns=["stage"])
    return Result(
        {stage: (table[stage] == table["class"]).to_numpy() for stage in present},
        float(summary["seconds"]),
        _scores(rows),
        summary.get("versions", {}).get("commit", ""),
        {stage: names.get_indexer(pd.Index(table[stage])).astype(np.int16) for stage in present},
        _pool(rows),
        _of_phase2(rows, BELIEVED),
        {name: float(results[key]) for name, key in CALIBRATION.items() if key in results} | _unsure_shares(table),
    )


def _unsure_shares(table: pd.DataFrame) -> dict[str, float]:
    """Return the percentages of test images, and of wrong ones among them, that `--unsure` sets aside."""
    if "confidence" not in table:
        return {}
    unsure, wrong = table["confidence"].astype(float) < EVEN, table["end"] != table["class"]
    caught = {"caught": 100 * float(unsure[wrong].mean())} if wrong.any() else {}
    return {"unsure": 100 * float(unsure.mean()), **caught}


def _scores(rows: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return AUROCs of the first and the last labels of Phase II, by time and score."""
    rows = rows[rows["stage"] == "phase2"].reindex(columns=list(SCORES.values())).dropna()
    if rows.empty:
        return {}
    return {(time, name): float(rows.iloc[at][key]) for time, at in TIMES.items() for name, key in SCORES.items()}


def _pool(rows: pd.DataFrame) -> dict[str, float]:
    """Return the percentage of unlabeled images whose label is right: zero-shot, and first and last in Phase II."""
    begun = rows[rows["stage"] == "zero-shot"].reindex(columns=[POOL]).dropna()
    pool = {"zero-shot": 100 * float(begun.iloc[0][POOL])} if len(begun) else {}
    return pool | _of_phase2(rows, POOL)


def _of_phase2(rows: pd.DataFrame, column: str) -> dict[str, float]:
    """Return a share of the first and the last labels of Phase II, in percent, by time."""
    rows = rows[rows["stage"] == "phase2"].reindex(columns=[column]).dropna()
    return {time: 100 * float(rows.iloc[at][column]) for time, at in TIMES.items()} if len(rows) else {}


def identity(run: Run, settings: Settings) -> dict[str, Any]:
    """Return what identifies a run in the list. If a row of the benchmark or a checkpoint changes, its runs are redone.

    Args:
        run: The run.
        settings: Settings of its unit.
    """
    method = run.method
    version = {"version": method.version} if method.version > 1 else {}
    return {
        "backbone": run.backbone,
        "weights": weights_of(run.backbone),
        "dataset": run.dataset,
        "unit": dict(settings),
        "method": method.name,
        "trainer": method.trainer,
        "settings": dict(method.settings),
        "shots": method.shots,
        "seed": run.seed,
        **version,
    }


def key_of(identity: Mapping[str, Any]) -> str:
    """Convert an identity to a text that does not depend on the order of settings."""
    return json.dumps(identity, sort_keys=True)


def read_list(path: Path) -> dict[str, Result]:
    """Read a list of results, by `key_of`. The last result of a run counts. A missing file is an empty list.

    Raises:
        UserError: If a line cannot be read.
    """
    results = {}
    for number, line in enumerate(_lines(path), 1):
        try:
            entry = parse_json(line)
            LINE.check(entry)
            results[key_of(entry["of"])] = _result_of(entry)
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: this is no result of the benchmark ({in_a_line(error)}); remove the line"
            ) from error
    return results


def _result_of(entry: Mapping[str, Any]) -> Result:
    """Build the result of a line.

    Raises:
        ValueError: If it does not have one bit and one class per image.
    """
    images = entry["images"]
    predicted = {stage: np.frombuffer(bytes.fromhex(t), np.int16) for stage, t in entry.get("predicted", {}).items()}
    if wrong := [stage for stage, classes in predicted.items() if len(classes) != images]:
        raise ValueError(f"predicted.{wrong[0]} has other than {images} images")
    right = {stage: _unpacked(text, images) for stage, text in entry["right"].items()}
    scores = {(time, name): value for time, by_name in entry["auroc"].items() for name, value in by_name.items()}
    shares = (entry.get(name, {}) for name in SHARES)
    return Result(right, entry["seconds"], scores, entry.get("commit", ""), predicted, *shares)


def add_to_list(path: Path, results: Sequence[tuple[Mapping[str, Any], Result]]) -> None:
    """Append results to a list; existing lines stay, even those of the same runs. Safe for concurrent machines.

    Args:
        path: Path of the list.
        results: Results, each with its `identity`.
    """
    lines = sorted(_line(of, result) for of, result in results)
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(path.parent, patience=math.inf), replacing(path) as draft:
        draft.write_text("".join(f"{line}\n" for line in [*_lines(path), *lines]), encoding="utf-8")


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path, MAX_TABLE_BYTES).splitlines()
    except MISSING:
        return []
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no list of results, but no text; give another path") from error


def _line(of: Mapping[str, Any], result: Result) -> str:
    scores: dict[str, dict[str, float]] = {}
    for (time, name), value in result.scores.items():
        scores.setdefault(time, {})[name] = round(value, 4)
    images = len(next(iter(result.right.values())))
    right = {stage: np.packbits(value).tobytes().hex() for stage, value in result.right.items()}
    predicted = {stage: value.tobytes().hex() for stage, value in result.predicted.items()}
    shares = {"pool": result.pool, "believed": result.believed, "calibration": result.calibration}
    rounded = {name: {time: round(value, 2) for time, value in by_time.items()} for name, by_time in shares.items()}
    facts = {"commit": result.commit, "seconds": round(result.seconds), "images": images}
    return json.dumps({"of": of, **facts, "auroc": scores, **rounded, "right": right, "predicted": predicted})


def _unpacked(text: str, images: int) -> NDArray[np.bool_]:
    bits = np.frombuffer(bytes.fromhex(text), np.uint8)
    if len(bits) != -(-images // 8):
        raise ValueError(f"{len(bits)} bytes for {images} images")
    return np.unpackbits(bits, count=images).astype(bool)
