"""Tables of docs/results.md that need numbers of which only means are kept (docs/summaries.csv)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from ..statistics import PAIR, half_interval
from .cells import COFT, PAIRS, PLUS, SPREAD, both, markdown, pair_name, shown


def means(kept: pd.DataFrame, table: str) -> pd.DataFrame:
    """What is kept of a table, with half of each interval."""
    chosen = kept[kept["table"] == table]
    return chosen.assign(half=half_interval(chosen["std"], chosen["seeds"]))


def cells(kept: pd.DataFrame, table: str, keys: Sequence[str], form: str = ".1f") -> Callable[..., str]:
    """Find cells of a kept table by the values of some columns; what is not there is empty."""
    found = {tuple(row[key] for key in keys): row for row in means(kept, table).to_dict("records")}

    def cell(*values: Any) -> str:
        row = found.get(values)
        sign = "+" if row and "change" in row["quantity"] else ""
        return shown(row["mean"], row["half"], sign + form) if row else ""

    return cell


def filter_quality(runs: pd.DataFrame, kept: pd.DataFrame) -> str:
    """How well p_clean and the softmax find right labels, when Phase II makes its first and its last labels."""
    first = cells(kept, "filter", [*PAIR, "row", "quantity"], ".3f")
    share = cells(kept, "filter", [*PAIR, "row", "quantity"], ".0f")
    last = runs[runs["method"] == COFT]
    columns = ["auroc_p_clean_both", "auroc_confidence_both"]
    last = last.assign(change=last[columns[0]] - last[columns[1]])
    groups = last.groupby(PAIR)
    ends, changes = groups[columns].mean(), groups["change"].agg(SPREAD)
    rows = [
        [
            pair_name(pair),
            *(first(*pair, "first", column) for column in columns),
            *(format(ends.loc[pair, column], ".3f") for column in columns),
            both(changes.loc[pair], "+.3f"),
            *(share(*pair, "last", name) for name in ("coverage", "precision", "labels_right")),
        ]
        for pair in PAIRS
    ]
    titles = ["first: p_clean", "softmax", "last: p_clean", "softmax", "difference", "kept, %", "of them right, %"]
    return markdown(["", *titles, "of all right, %"], rows)


def filter_of_one_peer(kept: pd.DataFrame) -> str:
    """The same for p_clean of one peer alone, and how many labels p_clean keeps at first."""
    cell = cells(kept, "filter", [*PAIR, "row", "quantity"], ".3f")
    share = cells(kept, "filter", [*PAIR, "row", "quantity"], ".0f")
    columns = ("auroc_p_clean_one", "auroc_confidence_one")
    rows = [
        [
            pair_name(pair),
            *(cell(*pair, when, column) for when in ("first", "last") for column in columns),
            *(share(*pair, "first", name) for name in ("coverage", "precision", "labels_right")),
        ]
        for pair in PAIRS
    ]
    titles = ["first: p_clean", "softmax", "last: p_clean", "softmax", "kept at first, %", "of them right, %"]
    return markdown(["", *titles, "of all right, %"], rows)


def wrong_names(kept: pd.DataFrame) -> str:
    """Right pseudo-labels, and how many would be right if the classes swapped names in the best way."""
    cell = cells(kept, "names", [*PAIR, "row", "quantity"])
    times = ("zero-shot", "first", "last")
    rows = [
        [pair_name(pair), *(cell(*pair, when, name) for when in times for name in ("right", "right_renamed"))]
        for pair in PAIRS
    ]
    titles = [title for when in ("zero-shot", "first labels", "last labels") for title in (when, "renamed")]
    return markdown(["", *titles], rows)


def changed_parts(kept: pd.DataFrame, table: str, pairs: Sequence[tuple[str, str]], full: str) -> str:
    """Accuracies after both phases with a part changed, and differences to the full method.

    Args:
        kept: The kept means.
        table: Which of them.
        pairs: Data sets and backbones.
        full: The row of the full method, which has no difference.
    """
    cell = cells(kept, table, [*PAIR, "row", "quantity"])
    quantities = {"phase1": "Phase I", "phase1_change": "difference", "phase2": "Phase II", "change": "difference"}
    names = list(dict.fromkeys([full, *means(kept, table)["row"]]))
    rows = [[name, *(cell(*pair, name, quantity) for pair in pairs for quantity in quantities)] for name in names]
    many = len(pairs) > 1
    titles = [f"{pair_name(p)}: {title}" if many else title for p in pairs for title in quantities.values()]
    filled = [row for row in rows if any(row[1:])]
    used = [0, *(i for i in range(1, len(titles) + 1) if any(row[i] for row in filled))]
    return markdown([["", *titles][i] for i in used], [[row[i] for i in used] for row in filled])


def rounds_of_plus(runs: pd.DataFrame, kept: pd.DataFrame) -> str:
    """CoFT+ after each round, beside CoFT, and how many labels were right before each round."""
    cell = cells(kept, "rounds", [*PAIR, "row", "quantity"])
    share = cells(kept, "rounds", [*PAIR, "row", "quantity"], ".0f")
    table = runs.groupby([*PAIR, "method"])["accuracy"].agg(SPREAD)
    ends = [("CoFTPlus, after Phase I",), (PLUS,), (COFT,)]
    rows = [
        [
            pair_name(pair),
            *(cell(*pair, f"round {number}", "accuracy") for number in (1, 2)),
            *(both(table.loc[pair + method]) for method in ends),
            ", ".join(share(*pair, f"round {number}", "pool_right_before") for number in (1, 2, 3)),
        ]
        for pair in PAIRS
    ]
    titles = ["round 1", "round 2", "round 3", "CoFT+, end", "CoFT, end", "labels right before rounds 1, 2, 3, %"]
    return markdown(["", *titles], rows)


def renewed_seeds(runs: pd.DataFrame, kept: pd.DataFrame) -> str:
    """CoFT before and after its seeds were renewed in Phase II."""
    before = means(kept, "renewed").set_index(PAIR)
    now = runs[runs["method"] == COFT].groupby(PAIR)["accuracy"].agg(SPREAD)
    rows = []
    for pair in PAIRS:
        old = before.loc[pair]
        change = now.loc[pair, "mean"] - old["mean"]
        mark = " *" if "one draw" in old["version"] else ""
        rows.append([pair_name(pair), shown(old["mean"], old["half"]) + mark, both(now.loc[pair]), f"{change:+.1f}"])
    return markdown(["", "first seeds to the end", "renewed", "difference of means"], rows)


def description_shares(kept: pd.DataFrame) -> str:
    """Zero-shot accuracy with a share of the text features from descriptions."""
    cell = cells(kept, "descriptions", [*PAIR, "row"])
    shares = ("0", "0.5", "1")
    pairs = [pair for pair in PAIRS if pair[0] in ("Digits", "Icons")]
    return markdown(
        ["share", *shares], [[pair_name(pair), *(cell(*pair, share) for share in shares)] for pair in pairs]
    )
