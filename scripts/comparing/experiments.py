"""Experiments that say where CoFT's gain comes from: forks of one Phase I, and what its peers know."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from coft.core.experiment import flatten, write_json
from coft.core.files import read_json

from .peer_diagnostics import SCORES, STAGES, witness
from .plan import Run
from .tables import MISSING, markdown, titled

WITNESS = "witness.json"  # in the folder of a run
SURVIVAL = "survival."


def peers_of(runs: Sequence[Run]) -> pd.DataFrame:
    """What the peers of finished runs know; measured once for each run.

    Returns:
        Means over seeds: a line for each data set and backbone, a column for each number, such as "first.p_clean".
    """
    lines = []
    for run in runs:
        path, summary = run.folder / WITNESS, run.summary() or {}
        if not path.is_file():
            write_json(path, witness(run))
        lines.append({"pair": f"{summary['dataset']}, {run.backbone}", **flatten(read_json(path))})
    return means_by_pair(lines)


def means_by_pair(lines: Sequence[dict[str, object]]) -> pd.DataFrame:
    """Means over lines of the same `pair`, of the numbers that there are."""
    table = pd.DataFrame(lines).set_index("pair").astype(float)
    return table.groupby("pair", sort=False).mean()


def write_report(called: str, changes: pd.DataFrame, peers: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """All tables, as Markdown.

    Args:
        called: The command.
        changes: Accuracy of each row and its change to the unchanged method's, as `summarise_changes` makes it.
        peers: As `peers_of` makes it.
        notes: Remarks at the end.
    """
    parts = [f"`{called}`", titled({"Forks of one Phase I": changes}), _auroc_table(peers), _peer_table(peers)]
    return "\n\n".join([*parts, *(f"- {note}" for note in notes)]) + "\n"


def _auroc_table(peers: pd.DataFrame) -> str:
    rows = [
        [pair, stage, *(_cell(means[f"{stage}.{score}"], ".3f") for score in SCORES)]
        for pair, means in peers.iterrows()
        for stage in STAGES
    ]
    heads = ["AUROC: right or wrong?", "labels", *SCORES]
    return markdown(rows, heads, texts=len(heads))


def _peer_table(peers: pd.DataFrame) -> str:
    survivals = [name for name in peers if name.startswith(SURVIVAL)]
    columns = [*(f"{stage}.alike" for stage in STAGES), *survivals]
    rows = [[pair, *(_cell(means[name], ".2f") for name in columns)] for pair, means in peers.iterrows()]
    alike = [f"{stage} wrong labels that both give" for stage in STAGES]
    heads = ["shares", *alike, *(name.removeprefix(SURVIVAL) for name in survivals)]
    return markdown(rows, heads, texts=len(heads))


def _cell(value: float, shape: str) -> str:
    return MISSING if pd.isna(value) else format(value, shape)
