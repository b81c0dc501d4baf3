"""Changes the switches of a method one by one, and tabulates what each change costs.

bash scripts/ablate.sh DATASET ... [--trainer CoFT] [--groups G,G2] [--row NAME ...] [--seeds 1,2,3]
                       [--backbone B,B2] [--jobs N] [KEY VALUE ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from coft.core.errors import UserError
from coft.core.exit_codes import guarded
from scripts.launch import CONFIGS
from scripts.paths import called_from, shown

from .ablations import FULL, Ablation, choose, load_ablations, missing
from .differences import measured, overall_changes, summarise_changes, with_changes
from .figures import write_bars
from .methods import known_keys
from .plan import Grid, Run, plan
from .results import planned_rows
from .runner import TRAIN
from .session import (
    command_line,
    do_runs,
    failed_lines,
    make_folder,
    make_grid,
    make_parser,
    names,
    report_failures,
    unclaimed,
)
from .tables import remove_others, titled, write_tables

DESCRIPTION = "Change the switches of a method one by one; a table of paired differences to the unchanged method."
KIND = "ablations"
FILES = {
    "CoFT": CONFIGS / "ablations.yaml",
    "CoFTPlus": CONFIGS / "ablations_plus.yaml",
    "CoFTOracle": CONFIGS / "ablations_oracle.yaml",
}


def ablate(argv: Sequence[str], command: Sequence[str] = TRAIN) -> int:
    """Run and tabulate.

    Args:
        argv: Arguments of the script.
        command: What runs a trainer, in place of `python train.py`.

    Returns:
        0, or 1 if a run failed.
    """
    parser = make_parser("ablate", DESCRIPTION)
    parser.add_argument("--trainer", choices=FILES, help="default: CoFT, or the one of --ablations")
    parser.add_argument("--ablations", type=called_from, metavar="FILE", help="instead of configs/ablations*.yaml")
    parser.add_argument("--groups", type=names, default=[], metavar="G,G2", help="groups of the list; default: all")
    parser.add_argument(
        "--row", action="append", default=[], metavar="NAME", help="one of the list, by its name; again for more"
    )
    args = parser.parse_intermixed_args(argv)
    grid = make_grid(args)
    ablations = load_ablations(args.ablations or FILES[args.trainer or "CoFT"])
    trainer = ablations[0].method.trainer
    if args.trainer not in (None, trainer):
        raise UserError(f"--ablations {args.ablations} is of {trainer}; leave out --trainer {args.trainer}")
    chosen, notes = leave_out(choose(ablations, args.groups, args.row))
    runs, more = plan_ablations(chosen, grid)
    notes += more
    for note in notes:
        print(f"skipped: {note}", file=sys.stderr)
    runs, failures = do_runs(runs, grid, args, command)
    rows, called = planned_rows(runs), command_line("ablate", argv)
    notes = [*(f"skipped: {note}" for note in notes), *failed_lines(failures)]
    if failures and (rows.empty or FULL not in rows["variant"].values):
        return report_failures(failures)  # which says why there is nothing to compare with
    if rows.empty:
        print("no run is finished: nothing to tabulate", file=sys.stderr)
    else:
        publish(unclaimed(make_folder(args, grid, KIND) / trainer, args, called), called, chosen, rows, notes)
    return report_failures(failures)


def leave_out(ablations: Sequence[Ablation]) -> tuple[list[Ablation], list[str]]:
    """Leave out ablations that this version cannot run. Returns the others, and a note for each that is left out."""
    keys = known_keys()
    reasons = {ablation: missing(ablation, keys) for ablation in ablations}
    notes = [f"{ablation.method.name}: {reason}" for ablation, reason in reasons.items() if reason]
    return [ablation for ablation in ablations if not reasons[ablation]], notes


def plan_ablations(ablations: Sequence[Ablation], grid: Grid) -> tuple[list[Run], list[str]]:
    """Plan all runs, but those that do not go with the backbone, and those that change nothing.

    Returns:
        The runs, and a note for each ablation that changes nothing.
    """
    by_name = {ablation.method.name: ablation for ablation in ablations}
    runs = [run for run in plan([a.method for a in ablations], grid) if by_name[run.method.name].fits(run)]
    full = {(run.dataset, run.backbone, run.seed): run.config for run in runs if run.method.name == FULL}
    same = {
        run
        for run in runs
        if run.config == full[run.dataset, run.backbone, run.seed]
        and run.method.name != FULL
        and by_name[run.method.name].measure == "both"
    }
    notes = [f"{name}: is what the full method does" for name in dict.fromkeys(run.method.name for run in same)]
    return [run for run in runs if run not in same], sorted(notes)


def publish(
    folder: Path, command: str, ablations: Sequence[Ablation], rows: pd.DataFrame, notes: Sequence[str]
) -> None:
    """Print the tables and write all files.

    Raises:
        UserError: If no run of the unchanged method is finished, which all others are compared with.
    """
    runs = measured(rows, {ablation.method.name: ablation.measure for ablation in ablations})
    changes = with_changes(runs, FULL)
    if changes.empty:
        raise UserError("no run of the unchanged method is finished; the differences are to it")
    tables = {"Ablation": summarise_changes(changes)}
    over = overall_changes(changes)
    if not over.empty:
        tables["Overall: mean over all pairs of data set and backbone"] = over
    files = write_tables(folder, command, tables, changes, notes, name="ablation")
    drawn = tables["Ablation"].dropna(subset=["change"])
    if not drawn.empty:
        files.append(write_bars(folder / "bars.png", drawn, "change", "variant", "difference to full, points"))
    remove_others(folder, files)
    print(titled(tables))
    print(*(f"  {shown(file)}" for file in files), sep="\n")


if __name__ == "__main__":
    sys.exit(guarded(lambda: ablate(sys.argv[1:])))
