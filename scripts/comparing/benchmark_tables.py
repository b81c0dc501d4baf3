"""Tables of the benchmark, with intervals by paired bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .benchmark import NO_SEED, BySeed, Entry, Rows, Unit, paired
from .list import P_CLEAN
from .statistics import Right, Units, bootstrap_errors, interval, mean_errors
from .tables import MISSING, markdown

COUNTED = ("development", "confirmation")  # roles whose units count in means
MEANS = {role: (role,) for role in COUNTED} | {"both": COUNTED}
OURS = "CoFT"
REFERENCES = (  # reference methods of error ratios
    *("zero-shot", "label propagation", "UPL", "self-training", "self-training, equal steps"),
    *("self-training, equal steps, CoFT's first labels", "MUST", "DPA"),
    *("CoFT, filter: none", "CoFT, filter: own", "CoFT, filter: min-softmax", "CoFT", "CoOp, 16 labels a class"),
)
MAIN = ("zero-shot", "UPL", OURS)  # reference methods of all rows
CALIBRATION = {
    "accuracy": "accuracy",
    "confidence": "mean confidence",
    "error": "calibration error",
    "unsure": "set aside below .5",
    "caught": "of the wrong ones",
}
CLOSE = 5  # points by which an estimated share may differ from the true one
Table = Mapping[Unit, Rows]


def write_report(units: Table, called: str, bars: Sequence[Entry] = (), notes: Sequence[str] = ()) -> str:
    """Format all tables as Markdown, for the units with a result of CoFT, or for all units if there is none.

    Args:
        units: Rows by unit.
        called: Command line that makes the tables.
        bars: Targets, as in `Benchmark`.
        notes: Remarks for the end.
    """
    units = {unit: rows for unit, rows in units.items() if OURS in rows.right} or units
    tables = [bar_table(units, bars), accuracy_table(units), mean_table(units), ratio_table(units)]
    tables += [score_table(units), share_table(units), calibration_table(units)]
    return "\n\n".join([f"`{called}`", *filter(None, tables), *(f"- {note}" for note in notes)]) + "\n"


def _methods(units: Table) -> list[str]:
    """Return the methods with a result on any unit, in the order of the benchmark."""
    finished = {name for rows in units.values() for name in rows.right}
    return [
        name for name in dict.fromkeys(name for rows in units.values() for name in rows.methods) if name in finished
    ]


def _in_roles(units: Table, roles: Sequence[str]) -> dict[Unit, Rows]:
    return {unit: rows for unit, rows in units.items() if unit.role in roles}


# ---------------------------------------------------------------- ratios of errors


@dataclass(frozen=True)
class Ratio:
    """Ratio of the error rates of two methods, with its 95 % interval, and the number of seeds or units."""

    mean: float
    low: float
    high: float
    count: int


def _ratio(datasets: Sequence[Units], count: int) -> Ratio | None:
    mean, drawn = mean_errors(datasets), bootstrap_errors(datasets)
    if not mean[1]:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = drawn[:, 0] / drawn[:, 1]
    return Ratio(mean[0] / mean[1], *interval(ratios[~np.isnan(ratios)], len(datasets)), count)


def _pair(rows: Rows, name: str, reference: str) -> tuple[Right, ...] | None:
    if name == reference or not {name, reference} <= rows.right.keys():
        return None
    return paired(rows.right[name], rows.right[reference])


def _unit_ratio(rows: Rows, name: str, reference: str) -> Ratio | None:
    pair = _pair(rows, name, reference)
    return _ratio([[pair]], max(map(len, pair))) if pair else None


def _mean(units: Table, name: str, reference: str) -> Ratio | None:
    datasets: dict[str, list[tuple[Right, ...]]] = {}
    for unit, rows in units.items():
        if pair := _pair(rows, name, reference):
            datasets.setdefault(unit.dataset, []).append(pair)
    count = sum(map(len, datasets.values()))
    return _ratio(list(datasets.values()), count) if count > 1 else None


def _cell(ratio: Ratio | None) -> str:
    return f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] ({ratio.count})" if ratio else MISSING


def bar_table(units: Table, bars: Sequence[Entry]) -> str:
    """Format error ratios and their targets, for the units of each role and of both; number of units in brackets.

    There is a verdict if each role has a mean.
    """
    rows = []
    for bar in bars:
        names = bar["method"], bar["by"]
        ratios = [_mean(_in_roles(units, roles), *names) for roles in MEANS.values()]
        if both := ratios[-1]:
            met = verdict(both, bar["at_most"]) if all(ratios) else MISSING
            rows.append([*names, f"{bar['at_most']:.2f}", *map(_cell, ratios), met])
    heads = ["errors of", "by those of", "bar", *MEANS, "met on the mean of both?"]
    return markdown(rows, heads, texts=2)


def verdict(ratio: Ratio, bar: float) -> str:
    """Say whether a ratio is at most its target, with an interval below 1."""
    missed = ratio.mean - bar
    if missed >= 0.005:
        return f"missed by {missed:.2f}"
    if ratio.high >= 1:
        return "no, the interval reaches 1"
    return "yes" if missed <= 0 else "just missed"


def mean_table(units: Table) -> str:
    """Format error ratios to `MAIN` methods: means over the counted units with both, their number in brackets."""
    counted = _in_roles(units, COUNTED)
    names = _methods(counted)
    references = [name for name in MAIN if name in names]
    if len(counted) < 2 or not references:
        return ""
    rows = [[name, *(_cell(_mean(counted, name, other)) for other in references)] for name in names]
    return markdown(rows, ["errors, by those of (units)", *references])


def ratio_table(units: Table) -> str:
    """Format CoFT's error ratios to reference methods, one per column: a row per unit, then means over units.

    Numbers in brackets are seeds for units, and units for means.
    """
    units = {unit: rows for unit, rows in units.items() if OURS in rows.right}
    references = [other for other in REFERENCES if any(_pair(rows, OURS, other) for rows in units.values())]
    table = [
        [f"{unit.title} ({unit.role})", *(_cell(_unit_ratio(rows, OURS, other)) for other in references)]
        for unit, rows in units.items()
    ]
    for title, roles in MEANS.items():
        counted = _in_roles(units, roles)
        if len(counted) > 1:
            table.append([f"mean over units, {title}", *(_cell(_mean(counted, OURS, other)) for other in references)])
    return markdown(table, [f"errors of {OURS}, by those of", *references]) if references else ""


# ---------------------------------------------------------------- other tables


def accuracy_table(units: Table) -> str:
    """Format accuracies with intervals and the number of seeds in brackets: a row per unit, a column per method."""
    names = _methods(units)
    table = [
        [f"{unit.title} ({unit.role})", *(_accuracy(rows.right.get(name)) for name in names)]
        for unit, rows in units.items()
    ]
    return markdown(table, ["accuracy, % (seeds)", *names])


def _accuracy(right: BySeed | None) -> str:
    if right is None:
        return MISSING
    rows = np.stack(list(right.values()))
    low, high = interval(100 * (1 - bootstrap_errors([[(rows,)]])[:, 0]))
    return f"{100 * rows.mean():.1f} [{low:.1f}, {high:.1f}]" + ("" if NO_SEED in right else f" ({len(right)})")


def score_table(units: Table) -> str:
    """Format AUROCs of scores on CoFT's first and last labels of the pool: a row per unit, then how often p_clean wins.

    The last row counts the units where p_clean is above all other scores at both times.
    """
    scores = {unit: rows.scores for unit, rows in units.items() if rows.scores}
    places = list(dict.fromkeys(place for of_unit in scores.values() for place in of_unit))
    rows = [[unit.title, *(f"{of_unit[place]:.3f}" for place in places)] for unit, of_unit in scores.items()]
    counted = [of_unit for unit, of_unit in scores.items() if unit.role in COUNTED]
    if len(counted) > 1:
        above = {
            (time, name): [of_unit[time, P_CLEAN] > of_unit[time, name] for of_unit in counted]
            for time, name in places
            if name != P_CLEAN
        }
        cells = [f"{sum(above[place])} of {len(counted)}" if place in above else MISSING for place in places]
        rows.append(["p_clean above it (units that count)", *cells])
        always = sum(map(all, zip(*above.values(), strict=True)))
        rows.append(
            ["p_clean above all, first and last", f"{always} of {len(counted)}", *[MISSING] * (len(places) - 1)]
        )
    heads = ["AUROC, right from wrong labels", *(f"{time}: {name}" for time, name in places)]
    return markdown(rows, heads)


def share_table(units: Table) -> str:
    """Format the share of CoFT's first and last labels that are right, and mean p_clean, its estimate: a row per unit.

    The last two rows count the units where they differ by at most CLOSE points, at each time and at both times.
    """
    shares = {unit: rows.shares for unit, rows in units.items() if rows.shares}
    times = list(dict.fromkeys(time for of_unit in shares.values() for time in of_unit))
    rows = [[unit.title, *(f"{x:.1f}" for time in times for x in of_unit[time])] for unit, of_unit in shares.items()]
    counted = [of_unit for unit, of_unit in shares.items() if unit.role in COUNTED]
    if len(counted) > 1:
        close = [[abs(of_unit[time][0] - of_unit[time][1]) <= CLOSE for time in times] for of_unit in counted]
        cells = [cell for of_time in zip(*close, strict=True) for cell in (MISSING, f"{sum(of_time)} of {len(close)}")]
        rows.append([f"within {CLOSE} points (units that count)", *cells])
        rows.append(
            ["the same, first and last", f"{sum(map(all, close))} of {len(close)}", *[MISSING] * (2 * len(times) - 1)]
        )
    heads = ["labels of all images, %", *(f"{time}: {name}" for time in times for name in ("right", "mean p_clean"))]
    return markdown(rows, heads)


def calibration_table(units: Table) -> str:
    """Format CoFT's accuracy and confidence on test images, and the share that `--unsure` sets aside: a row per unit.

    The last row counts the units where accuracy and mean confidence differ by at most CLOSE points, and has the mean
    error.
    """
    of_coft = {unit: rows.calibration.get("CoFT", {}) for unit, rows in units.items()}
    numbers = {unit: of_unit for unit, of_unit in of_coft.items() if {"confidence", "error"} <= of_unit.keys()}
    rows = [
        [unit.title, *(f"{of_unit[name]:.1f}" if name in of_unit else MISSING for name in CALIBRATION)]
        for unit, of_unit in numbers.items()
    ]
    counted = [of_unit for unit, of_unit in numbers.items() if unit.role in COUNTED]
    if len(counted) > 1:
        close = sum(abs(of_unit["accuracy"] - of_unit["confidence"]) <= CLOSE for of_unit in counted)
        error = float(np.mean([of_unit["error"] for of_unit in counted]))
        title = f"within {CLOSE} points (units that count)"
        rows.append([title, MISSING, f"{close} of {len(counted)}", f"{error:.1f}", MISSING, MISSING])
    return markdown(rows, ["CoFT on test images, %", *CALIBRATION.values()])
