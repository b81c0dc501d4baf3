"""The tables of docs/results.md, from its lists of runs and of kept means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from .statistics import PAIR, half_interval, half_interval_of
from .tables import plain_zero

DATASETS = {"Digits": "Digits", "Icons": "Icons", "Emoji": "Emoji", "FashionMNIST": "Fashion-MNIST"}
BACKBONES = {"embedded": "ResNet", "embedded-vit": "ViT"}
PAIRS = [(dataset, backbone) for backbone in BACKBONES for dataset in DATASETS]
PHASE1, COFT, PLUS = "CoFT, after Phase I", "CoFT, after Phase II", "CoFTPlus, after Phase II"
METHODS = {  # in the order of the tables; what the list calls them, and the page
    "ZeroshotCLIP": "zero-shot CLIP",
    "NormAdaptation": "NormAdaptation",
    "UPL": "UPL",
    "UPL x 2": "UPL x 2",
    "GRIP": "GRIP",
    "LaFTer": "LaFTer",
    "DeFT, after Phase II": "DeFT",
    "SelfTraining": "SelfTraining",
    PHASE1: "CoFT, Phase I",
    COFT: "**CoFT**",
    PLUS: "CoFT+",
    **{f"CoOp, {shots} shot{'s' * (shots > 1)}": f"CoOp, {shots}-shot, labels" for shots in (1, 2, 4, 8, 16)},
    "Supervised": "supervised, all labels",
}
COMPARED = {  # rows of the table of differences
    **{f"CoFT - {METHODS[name]}": (COFT, name) for name in METHODS if name not in (PHASE1, COFT, PLUS)},
    "CoFT, Phase I - zero-shot CLIP": (PHASE1, "ZeroshotCLIP"),
    "CoFT, Phase II - Phase I": (COFT, PHASE1),
    "CoFT+ - CoFT": (PLUS, COFT),
    "CoFT+ - CoOp, 16-shot, labels": (PLUS, "CoOp, 16 shots"),
}
BY_PAIR = ("CoFT - zero-shot CLIP", "CoFT - UPL", "CoFT - SelfTraining", "CoFT, Phase II - Phase I", "CoFT+ - CoFT")
SPREAD = ["mean", half_interval_of]  # what each mean is shown with
Rows = Sequence[Sequence[str]]


def markdown(titles: Sequence[str], rows: Rows) -> str:
    """A table whose first column is text and whose others are numbers."""
    align = ["left", *["right"] * (len(titles) - 1)]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True, colalign=align)


def shown(mean: float, half: float = float("nan"), form: str = ".1f") -> str:
    """A mean with half of its interval, if there is one; empty without a mean."""
    if pd.isna(mean):
        return ""
    text = plain_zero(format(mean, form), sign="+" if form.startswith("+") else "")
    return text if pd.isna(half) else f"{text} ± {format(half, form.lstrip('+'))}"


def both(row: pd.Series, form: str = ".1f") -> str:
    """A line of `agg(SPREAD)` as a cell."""
    return shown(row["mean"], row["half_interval_of"], form)


def pair_name(pair: tuple[str, str]) -> str:
    """A data set and a backbone as the page calls them."""
    return f"{DATASETS[pair[0]]}, {BACKBONES[pair[1]]}"


# ------------------------------------------------------------------ from single runs


def by_seed(runs: pd.DataFrame, column: str = "accuracy") -> pd.DataFrame:
    """Results with a line for each pair and seed, a column for each method.

    What was run once on a pair, since it draws nothing, counts for all of its seeds.
    """
    wide = runs.pivot_table(index=[*PAIR, "seed"], columns="method", values=column)
    return wide.groupby(PAIR).transform(lambda one: one.fillna(one.mean()) if one.count() == 1 else one)


def accuracies(runs: pd.DataFrame, backbone: str) -> str:
    """Test accuracy of each method on each data set with a backbone."""
    groups = runs[runs["backbone"] == backbone].groupby(["method", "dataset"])["accuracy"]
    table = groups.agg(SPREAD)
    rows = [[name, *(both(table.loc[(method, data)]) for data in DATASETS)] for method, name in METHODS.items()]
    return markdown(["", *DATASETS.values()], rows)


def differences(runs: pd.DataFrame) -> str:
    """Differences on the mean over all pairs: with the interval over pairs, and in how many pairs it is shown."""
    wide = by_seed(runs)
    return markdown(
        ["difference", "mean over pairs", "shown?", "pairs above", "shown above", "shown below"],
        [[name, *_over_pairs(wide[one] - wide[other])] for name, (one, other) in COMPARED.items()],
    )


def _over_pairs(change: pd.Series) -> list[str]:
    pairs = change.groupby(PAIR).agg(SPREAD)
    mean, half = pairs["mean"].mean(), half_interval_of(pairs["mean"])
    low, high = pairs["mean"] - pairs["half_interval_of"], pairs["mean"] + pairs["half_interval_of"]
    counts = [int((pairs["mean"] > 0).sum()), int((low > 0).sum()), int((high < 0).sum())]
    return [shown(mean, half, "+.1f"), verdict(mean, half), f"{counts[0]} of {len(pairs)}", *map(str, counts[1:])]


def verdict(mean: float, half: float) -> str:
    """Whether an interval leaves out zero, and on which side."""
    if abs(mean) <= half:
        return "no"
    return "higher" if mean > 0 else "lower"


def differences_by_pair(runs: pd.DataFrame) -> str:
    """The main differences on each pair, paired by seed."""
    wide = by_seed(runs)
    tables = [(wide[one] - wide[other]).groupby(PAIR).agg(SPREAD) for one, other in map(COMPARED.__getitem__, BY_PAIR)]
    rows = [[pair_name(pair), *(both(table.loc[pair], "+.1f") for table in tables)] for pair in PAIRS]
    return markdown(["", *BY_PAIR], rows)


# ------------------------------------------------------------------ from kept means


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
    """The same for the word of one peer alone, and how many labels p_clean keeps at first."""
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
    return markdown(["", "first seeds to the end", "renewed, as now", "difference of means"], rows)


def description_shares(kept: pd.DataFrame) -> str:
    """Zero-shot accuracy with a share of the text features from descriptions."""
    cell = cells(kept, "descriptions", [*PAIR, "row"])
    shares = ("0", "0.5", "1")
    pairs = [pair for pair in PAIRS if pair[0] in ("Digits", "Icons")]
    return markdown(
        ["share", *shares], [[pair_name(pair), *(cell(*pair, share) for share in shares)] for pair in pairs]
    )


def all_blocks(runs: pd.DataFrame, kept: pd.DataFrame) -> dict[str, str]:
    """All tables by the names that the page calls them by."""
    now, before = kept[kept["version"] == "now"], kept[kept["version"] != "now"]
    resnet, vit = ([(dataset, backbone) for dataset in DATASETS] for backbone in BACKBONES)
    return {
        "accuracies-resnet": accuracies(runs, "embedded"),
        "accuracies-vit": accuracies(runs, "embedded-vit"),
        "differences": differences(runs),
        "differences-by-pair": differences_by_pair(runs),
        "filter": filter_quality(runs, kept),
        "filter-one-peer": filter_of_one_peer(kept),
        "wrong-names": wrong_names(kept),
        "parts": changed_parts(now, "parts", [resnet[2]], "CoFT"),
        "parts-before": changed_parts(before, "parts", [resnet[1]], "CoFT"),
        "oracle": changed_parts(kept, "oracle", [resnet[1], resnet[2]], "CoFT"),
        "oracle-vit": changed_parts(kept, "oracle", [vit[3]], "CoFT"),
        "renewed": renewed_seeds(runs, kept),
        "rounds": rounds_of_plus(runs, kept),
        "parts-plus": changed_parts(now, "parts_plus", [resnet[2]], "CoFT+"),
        "parts-plus-before": changed_parts(before, "parts_plus", [vit[1]], "CoFT+"),
        "descriptions": description_shares(kept),
    }
