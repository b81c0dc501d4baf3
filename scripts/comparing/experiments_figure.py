"""The picture of the five experiments, drawn from the tables that `experiments.sh` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coft.core.errors import UserError
from coft.rivals.noise import NOISES

from .ablate import FILES
from .ablations import FULL, load_ablations
from .figures import panels, write_figure
from .peer_diagnostics import STAGES

Table = Sequence[Mapping[str, str]]  # a row each: cells by heading
ACCURACY = "accuracy %"
SHARES = "shares"  # the first heading of the peers' table
BAR = "#8fb3d9"
PANELS = 6  # of a pair


def draw(path: Path, report: str) -> Path:
    """Draw a row of panels for each data set and backbone.

    Args:
        path: The image.
        report: Tables of one or more calls of `experiments.sh`, in Markdown. Of what they have twice the first counts.

    Raises:
        UserError: If it has no such tables.
    """
    rows = [row for table in tables_of(report) for row in table]
    forks: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        if ACCURACY in row:
            forks.setdefault(f"{row['data set']}, {row['backbone']}", []).append(row)
    shares = {row[SHARES]: row for row in reversed(rows) if SHARES in row}
    if not forks or forks.keys() - shares.keys():
        raise UserError("--experiments: these are no tables of experiments.sh; give the experiments.md that it wrote")

    def work(figure: Any) -> None:
        axes = panels(figure, PANELS * len(forks), PANELS)
        for number, (name, rows) in enumerate(forks.items()):
            dose, coverage, alike, survival, late, noise = axes[PANELS * number : PANELS * (number + 1)]
            ends: dict[str, float] = {}
            for row in rows:
                ends.setdefault(row["change"], _number(row[ACCURACY]))
            dose.set_ylabel(f"{name}: {ACCURACY}")
            _draw_forks(dose, coverage, late, ends)
            _draw_noise(noise, ends)
            _draw_shares(alike, survival, shares[name])

    return write_figure(path, (4 * PANELS, 3.6 * len(forks)), work)


def tables_of(text: str) -> Sequence[Table]:
    """All tables of a Markdown text."""
    found: list[list[dict[str, str]]] = []
    heads: list[str] | None = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            heads = None
        elif heads is None:
            heads = cells
            found.append([])
        elif set(line) - set("|-: "):
            found[-1].append(dict(zip(heads, cells, strict=True)))
    return found


def _draw_forks(dose: Any, coverage: Any, late: Any, ends: Mapping[str, float]) -> None:
    """Three panels with the same accuracies on their axes."""
    groups = {ablation.method.name: ablation.group for ablation in load_ablations(FILES["CoFTOracle"])}
    own = {change: end for change, end in ends.items() if groups[change] != "noise"}
    for axes, group, title in ((dose, "dose", "filter of this AUROC"), (coverage, "coverage", "surest of a class, %")):
        points = sorted((_last_number(change), end) for change, end in own.items() if groups[change] == group)
        axes.plot([number for number, _ in points], [end for _, end in points], "o-")
        axes.set_title(title)
    shown = {change: end for change, end in own.items() if groups[change] in ("late", FULL)}
    late.plot(list(shown), list(shown.values()), "o")
    late.set_title("late labels")
    late.margins(x=0.2)
    for axes in (dose, coverage, late):
        axes.axhline(own[FULL], color="black", linestyle=":")
        axes.set_ylim(min(own.values()) - 1, max(own.values()) + 1)


def _draw_noise(axes: Any, ends: Mapping[str, float]) -> None:
    """What labels that are wrong in a known way come to; an empty panel where that was not run."""
    if not any(f"{kind} noise" in ends for kind in NOISES):
        axes.set_axis_off()
        return
    axes.set_title("2 of C labels are wrong")
    for tail, label, marker in (("", "with the filter", "o"), (", no filter", "without", "x")):
        points = {kind: ends.get(f"{kind} noise{tail}", float("nan")) for kind in NOISES[1:]}
        axes.plot(list(points), list(points.values()), marker, label=label)
    axes.margins(x=0.2)
    axes.legend(fontsize=7)


def _draw_shares(alike: Any, survival: Any, row: Mapping[str, str]) -> None:
    alike.bar(STAGES, [_number(row[f"{stage} wrong labels that both give"]) for stage in STAGES], color=BAR)
    alike.set(title="wrong labels that both peers give", ylim=(0, 1))
    kinds = ("alone", "among wrong ones")
    for shift, tail, label, color in (
        (-0.2, "", "share of first wrong labels", BAR),
        (0.2, ", right in the end", "of them right in the end", "#445577"),
    ):
        shares = [_number(row[kind + tail]) for kind in kinds]
        survival.bar(np.arange(2) + shift, shares, 0.4, label=label, color=color)
    survival.set(title="which errors survive", ylim=(0, 1))
    survival.set_xticks([0, 1], kinds)
    survival.legend(fontsize=7)


def _number(cell: str) -> float:
    """The number of a cell, without its interval; not a number where there is none."""
    return float("nan") if cell == "-" else float(cell.split()[0].rstrip("%"))


def _last_number(text: str) -> float:
    return float(next(word for word in reversed(text.split()) if word[0].isdigit()))
