"""Experiments that say where CoFT's gain comes from: forks of one Phase I, and what its peers know.

bash scripts/experiments.sh DATASET ... [--seeds 1,2,3] [--backbone B,B2] [--row NAME ...] [--jobs N] [KEY VALUE ...]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from coft.core.exit_codes import guarded
from coft.core.experiment import write_json
from coft.core.files import read_json, replacing
from scripts.paths import shown

from .ablate import FILES, plan_ablations
from .ablations import FULL, Ablation, choose, load_ablations
from .differences import measured, summarise_changes, with_changes
from .experiments_figure import draw
from .peer_diagnostics import SCORES, STAGES, witness
from .plan import Run
from .results import planned_rows
from .runner import TRAIN
from .session import command_line, do_runs, failed_lines, make_folder, make_grid, make_parser, report_failures
from .tables import titled

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
    picture = draw(folder / "experiments.png", report)
    print(report, *(f"  {shown(file)}" for file in (folder / "experiments.md", picture)), sep="\n")
    return report_failures(failures)


def changes_of(rows: pd.DataFrame, ablations: Sequence[Ablation]) -> pd.DataFrame:
    """Accuracy of each row and its change to the unchanged method's, with seeds paired."""
    runs = measured(rows, {ablation.method.name: ablation.measure for ablation in ablations})
    return summarise_changes(with_changes(runs, FULL))


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
    tables = titled({"Forks of one Phase I": changes})
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


if __name__ == "__main__":
    sys.exit(guarded(lambda: experiment(sys.argv[1:])))
