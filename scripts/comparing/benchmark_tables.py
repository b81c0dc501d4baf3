"""Tables of the benchmark, with intervals by paired bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from .benchmark_rows import ANY, BySeed, Derived, Found, Unit, paired, read_unit, with_derived
from .bootstrap import Right, Units, errors, interval, resampled
from .evidence import P_CLEAN, Result
from .plan import Run

COUNTED = ("development", "confirmation")  # roles that means are over
MEANS = {role: (role,) for role in COUNTED} | {"both": COUNTED}
OURS = ("CoFT", "CoFT+", "CoFT+, descriptions", "CoFT+, contrast")
REFERENCES = (  # of ratios of errors
    *("zero-shot", "label propagation", "UPL", "UPL x 2, CoFT's first labels", "self-training, CoFT's labels"),
    *("CoFT, filter: none", "CoFT, filter: self", "CoFT, filter: probability", "CoFT", "CoOp, 16 labels a class"),
)


@dataclass(frozen=True)
class Bar:
    """What was hoped for: errors of a method by those of another, on the mean over units that count.

    Attributes:
        method: The method.
        reference: The other one.
        at_most: The ratio.
    """

    method: str
    reference: str
    at_most: float


@dataclass(frozen=True)
class Ratio:
    """Errors of a method by those of another, with the interval, and how many seeds or units it is of."""

    mean: float
    low: float
    high: float
    count: int


# ---------------------------------------------------------------- tables


def write_report(
    planned: Mapping[Unit, Sequence[Run]],
    results: Mapping[Run, Result],
    called: str,
    bars: Sequence[Bar] = (),
    derived: Sequence[Derived] = (),
    notes: Sequence[str] = (),
) -> str:
    """All tables, as Markdown."""
    read = {unit: with_derived(unit, read_unit(runs, results), derived) for unit, runs in planned.items()}
    found = {unit: own for unit, own in read.items() if own.right}
    tables = [bar_table(found, bars), accuracy_table(found), mean_table(found)]
    tables += [ratio_table(found, name) for name in OURS]
    tables += [score_table(found), seconds_table(found)]
    return "\n\n".join([f"`{called}`", *filter(None, tables), *(f"- {note}" for note in notes)]) + "\n"


def bar_table(found: Mapping[Unit, Found], bars: Sequence[Bar]) -> str:
    """Whether bars are met, by units of each role and of both; the number of units is in brackets.

    There is a verdict where each role has a mean.
    """
    rows = []
    for bar in bars:
        names = (bar.method, bar.reference)
        ratios = [_mean_ratio(_in_roles(found, roles), *names) for roles in MEANS.values()]
        if ratios[-1]:
            found_out = verdict(ratios[-1], bar.at_most) if all(ratios) else "-"
            rows.append([*names, f"{bar.at_most:.2f}", *map(_ratio_cell, ratios), found_out])
    return (
        _table(rows, ["errors of", "by those of", "bar", *MEANS, "met on the mean of both?"], texts=2) if rows else ""
    )


def _in_roles(found: Mapping[Unit, Found], roles: Sequence[str]) -> dict[Unit, Found]:
    return {unit: own for unit, own in found.items() if unit.role in roles}


def verdict(ratio: Ratio, bar: float) -> str:
    """Whether a ratio is at most a bar, with an interval below 1."""
    missed = ratio.mean - bar
    if missed >= 0.005:
        return f"missed by {missed:.2f}"
    return (
        "yes" if missed <= 0 and ratio.high < 1 else "no, the interval reaches 1" if ratio.high >= 1 else "just missed"
    )


def accuracy_table(found: Mapping[Unit, Found]) -> str:
    """Accuracies with intervals, and in brackets the number of seeds: a row a method, a column a unit."""
    rows = [[name, *(_accuracy(own.right.get(name)) for own in found.values())] for name in _methods(found)]
    return _table(rows, ["accuracy, % (seeds)", *(f"{unit.title} ({unit.role})" for unit in found)])


def _methods(found: Mapping[Unit, Found]) -> list[str]:
    there = {name for own in found.values() for name in own.right}
    return [name for name in dict.fromkeys(name for own in found.values() for name in own.methods) if name in there]


def _accuracy(right: BySeed | None) -> str:
    if right is None:
        return "-"
    rows = np.stack(list(right.values()))
    low, high = interval(100 * (1 - resampled([[(rows,)]])[:, 0]))
    return f"{100 * rows.mean():.1f} [{low:.1f}, {high:.1f}]" + ("" if ANY in right else f" ({len(right)})")


def mean_table(found: Mapping[Unit, Found]) -> str:
    """Errors by those of references, on the mean over units that count and have both, whose number is in brackets."""
    counted = _in_roles(found, COUNTED)
    names = _methods(counted)
    references = [name for name in REFERENCES if name in names]
    if len(counted) < 2 or not references:
        return ""
    rows = [[name, *(_mean(counted, name, other) for other in references)] for name in names]
    return _table(rows, ["errors, by those of (units)", *references])


def ratio_table(found: Mapping[Unit, Found], name: str) -> str:
    """Errors of a method by those of references: a row a unit, with seeds in brackets, and means; a column a reference.

    Means have the number of units in brackets.
    """
    having = {unit: own for unit, own in found.items() if name in own.right}
    references = [other for other in REFERENCES if any(_pair(own, name, other) for own in having.values())]
    rows = [
        [f"{unit.title} ({unit.role})", *(_of_unit(own, name, other) for other in references)]
        for unit, own in having.items()
    ]
    for title, roles in MEANS.items():
        counted = _in_roles(having, roles)
        if len(counted) > 1:
            rows.append([f"mean over units, {title}", *(_mean(counted, name, other) for other in references)])
    return _table(rows, [f"errors of {name}, by those of", *references]) if rows and references else ""


def _pair(own: Found, name: str, reference: str) -> tuple[Right, ...] | None:
    if name == reference or not {name, reference} <= own.right.keys():
        return None
    return paired(own.right[name], own.right[reference])


def _of_unit(own: Found, name: str, reference: str) -> str:
    pair = _pair(own, name, reference)
    return _ratio_cell(_ratio([[pair]], max(map(len, pair)))) if pair else "-"


def _mean(found: Mapping[Unit, Found], name: str, reference: str) -> str:
    return _ratio_cell(_mean_ratio(found, name, reference))


def _mean_ratio(found: Mapping[Unit, Found], name: str, reference: str) -> Ratio | None:
    datasets: dict[str, list[tuple[Right, ...]]] = {}
    for unit, own in found.items():
        if pair := _pair(own, name, reference):
            datasets.setdefault(unit.dataset, []).append(pair)
    count = sum(map(len, datasets.values()))
    return _ratio(list(datasets.values()), count) if count > 1 else None


def _ratio(datasets: Sequence[Units], count: int) -> Ratio | None:
    mean, drawn = errors(datasets), resampled(datasets)
    if not mean[1]:
        return None
    return Ratio(mean[0] / mean[1], *interval(drawn[:, 0] / np.maximum(drawn[:, 1], 1e-9)), count)


def _ratio_cell(ratio: Ratio | None) -> str:
    return f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] ({ratio.count})" if ratio else "-"


def score_table(found: Mapping[Unit, Found]) -> str:
    """How well scores rank CoFT's first and last labels of the pool: a row a unit; and how often p_clean is best.

    The last row counts the units where it is above all other scores at both times.
    """
    having = {unit: own.scores for unit, own in found.items() if own.scores}
    places = list(dict.fromkeys(place for scores in having.values() for place in scores))
    rows = [[unit.title, *(f"{scores[place]:.3f}" for place in places)] for unit, scores in having.items()]
    counted = [scores for unit, scores in having.items() if unit.role in COUNTED]
    if len(counted) > 1:
        rows.append(["p_clean above it (units that count)", *(_times_below(counted, place) for place in places)])
        always = sum(_always_above(scores) for scores in counted)
        rows.append(["p_clean above all, first and last", f"{always} of {len(counted)}", *["-"] * (len(places) - 1)])
    heads = ["AUROC, right from wrong labels", *(f"{time}: {name}" for time, name in places)]
    return _table(rows, heads) if rows else ""


def _times_below(counted: Sequence[Mapping[tuple[str, str], float]], place: tuple[str, str]) -> str:
    time, name = place
    count = sum(scores[time, P_CLEAN] > scores[place] for scores in counted)
    return "-" if name == P_CLEAN else f"{count} of {len(counted)}"


def _always_above(scores: Mapping[tuple[str, str], float]) -> bool:
    return all(scores[time, P_CLEAN] > value for (time, name), value in scores.items() if name != P_CLEAN)


def seconds_table(found: Mapping[Unit, Found]) -> str:
    """Seconds of a run: a row a method, a column a unit."""
    there = {name for own in found.values() for name in own.seconds}
    names = [name for name in _methods(found) if name in there]
    rows = [[name, *(_seconds(own.seconds.get(name)) for own in found.values())] for name in names]
    return _table(rows, ["seconds", *(unit.title for unit in found)])


def _seconds(own: Mapping[int, float] | None) -> str:
    return f"{np.mean(list(own.values())):.0f}" if own else "-"


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str], texts: int = 1) -> str:
    align = [*["left"] * texts, *["right"] * (len(heads) - texts)]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=align if rows else None)
