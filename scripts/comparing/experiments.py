"""Experiments that say where CoFT's gain comes from: forks of one Phase I, and what its peers know.

bash scripts/experiments.sh DATASET ... [--seeds 1,2,3] [--backbone B,B2] [--row NAME ...] [--jobs N] [KEY VALUE ...]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from coft.runtime.ending import guarded
from coft.runtime.experiment import write_json
from coft.runtime.files import read_json, replacing
from scripts.paths import shown

from .ablate import FILES, plan_ablations
from .ablations import FULL, Ablation, choose, load_ablations
from .differences import measured, summarise_changes, with_changes
from .figures import panels, write_figure
from .plan import Run
from .results import planned_rows
from .runner import TRAIN
from .session import command_line, do_runs, failed_lines, make_folder, make_grid, make_parser, report_failures
from .tables import titled
from .witness import SCORES, STAGES, witness

DESCRIPTION = "Fork Phase II of CoFT with other filters, labels and rates, and measure what its peers know."
KIND = "experiments"
KNOWN = "witness.json"  # in the folder of a run
Witnesses = Mapping[tuple[str, str], Sequence[dict[str, Any]]]  # by data set and backbone, one a seed


def experiment(argv: Sequence[str], command: Sequence[str] = TRAIN) -> int:
    """Run and tabulate.

    Args:
        argv: Arguments of the script.
        command: What runs a trainer, in place of `python train.py`.

    Returns:
        0, or 1 if a run failed.
    """
    parser = make_parser("experiments", DESCRIPTION)
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="NAME",
        help="one of configs/ablations_oracle.yaml; again for more",
    )
    args = parser.parse_intermixed_args(argv)
    grid = make_grid(args)
    ablations = choose(load_ablations(FILES["CoFTOracle"]), [], args.row)
    runs, _ = plan_ablations(ablations, grid)
    runs, failures = do_runs(runs, grid, args, command)
    full = [run for run in runs if run.method.name == FULL and run.summary()]
    if not full:
        print("no run of the unchanged method is finished: nothing to tabulate", file=sys.stderr)
        return report_failures(failures)
    folder = make_folder(args, grid, KIND)
    folder.mkdir(parents=True, exist_ok=True)
    changes = changes_of(planned_rows(runs), ablations)
    known = witnesses(full)
    report = write_report(command_line("experiments", argv), changes, known, failed_lines(failures))
    with replacing(folder / "experiments.md") as draft:
        draft.write_text(report, encoding="utf-8")
    picture = draw(folder / "experiments.png", changes, known)
    print(report, *(f"  {shown(file)}" for file in (folder / "experiments.md", picture)), sep="\n")
    return report_failures(failures)


def changes_of(rows: pd.DataFrame, ablations: Sequence[Ablation]) -> pd.DataFrame:
    """Accuracy of each row and its change to the unchanged method's, with seeds paired; and its group."""
    runs = measured(rows, {ablation.method.name: ablation.measure for ablation in ablations})
    table = summarise_changes(with_changes(runs, FULL))
    return table.assign(group=table["variant"].map({a.method.name: a.group for a in ablations}))


def witnesses(full: Sequence[Run]) -> Witnesses:
    """What the peers of finished runs know; measured once for each run."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in full:
        path, summary = run.folder / KNOWN, run.summary() or {}
        if not path.is_file():
            write_json(path, witness(run))
        known = read_json(path)
        found.setdefault((str(summary["dataset"]), run.backbone), []).append(known)
    return found


def write_report(called: str, changes: pd.DataFrame, known: Witnesses, notes: Sequence[str] = ()) -> str:
    """All tables, as Markdown."""
    tables = titled({"Forks of one Phase I": changes.drop(columns="group")})
    parts = [f"`{called}`", tables, _auroc_table(known), _peer_table(known)]
    return "\n\n".join([*parts, *(f"- {note}" for note in notes)]) + "\n"


def _auroc_table(known: Witnesses) -> str:
    rows = [
        [f"{dataset}, {backbone}", stage, *(_mean(each, stage, score, ".3f") for score in SCORES)]
        for (dataset, backbone), each in known.items()
        for stage in STAGES
    ]
    return _table(rows, ["AUROC: right or wrong?", "labels", *SCORES])


def _peer_table(known: Witnesses) -> str:
    kinds = list(next(iter(known.values()))[0]["survival"])
    heads = ["shares", *(f"{stage} wrong labels that both give" for stage in STAGES), *kinds]
    rows = [
        [
            f"{dataset}, {backbone}",
            *(_mean(each, stage, "alike", ".2f") for stage in STAGES),
            *(_mean(each, "survival", kind, ".2f") for kind in kinds),
        ]
        for (dataset, backbone), each in known.items()
    ]
    return _table(rows, heads)


def _mean(each: Sequence[dict[str, Any]], part: str, key: str, shape: str) -> str:
    values = [own[part][key] for own in each if own[part][key] is not None]
    return format(float(np.mean(values)), shape) if values else "-"


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


def draw(path: Path, changes: pd.DataFrame, known: Witnesses) -> Path:
    """Draw the five experiments, a row of panels for each data set and backbone."""
    pairs = list(changes.groupby(["dataset", "backbone"], sort=False))

    def work(figure: Any) -> None:
        axes = panels(figure, 5 * len(pairs), 5)
        for (name, table), own, row in zip(pairs, known.values(), range(len(pairs)), strict=True):
            _draw_pair(axes[5 * row : 5 * row + 5], f"{name[0]}, {name[1]}", table, own)

    return write_figure(path, (20, 3.6 * len(pairs)), work)


def _draw_pair(axes: Sequence[Any], name: str, table: pd.DataFrame, own: Sequence[dict[str, Any]]) -> None:
    full = float(table.loc[table["variant"] == FULL, "final"].iloc[0])
    for place, group, title in ((0, "dose", "filter of this AUROC"), (1, "coverage", "surest of each class, %")):
        part = table[table["group"] == group]
        axes[place].plot([float(v.split()[-1 if group == "dose" else 1]) for v in part["variant"]], part["final"], "o-")
        axes[place].axhline(full, color="black", linestyle=":")
        axes[place].set(title=f"{name}\n{title}", ylabel="accuracy, %")
    axes[2].bar(STAGES, [np.mean([w[stage]["alike"] for w in own]) for stage in STAGES], color="#8fb3d9")
    axes[2].set(title="wrong labels that both peers give", ylim=(0, 1))
    kinds = ("alone", "among wrong ones")
    shares = [
        [np.mean([w["survival"][kind + tail] for w in own]) for kind in kinds] for tail in ("", ", right in the end")
    ]
    axes[3].bar(np.arange(2) - 0.2, shares[0], 0.4, label="share of first wrong labels", color="#8fb3d9")
    axes[3].bar(np.arange(2) + 0.2, shares[1], 0.4, label="of them right in the end", color="#445577")
    axes[3].set(title="which errors survive", ylim=(0, 1))
    axes[3].set_xticks([0, 1], kinds)
    axes[3].legend(fontsize=7)
    late = table[table["group"].isin(["late", FULL])]
    axes[4].barh(late["variant"], late["final"], color="#8fb3d9")
    axes[4].set(title="late labels: accuracy, %", xlim=(late["final"].min() - 2, late["final"].max() + 1))


if __name__ == "__main__":
    sys.exit(guarded(lambda: experiment(sys.argv[1:])))
