"""Tables of docs/results.md that follow from single runs."""

from __future__ import annotations

import pandas as pd

from ..statistics import PAIR, half_interval_of
from .cells import COFT, DATASETS, METHODS, PAIRS, PHASE1, PLUS, SPREAD, both, markdown, pair_name, shown

COMPARED = {  # rows of the table of differences
    **{f"CoFT - {METHODS[name]}": (COFT, name) for name in METHODS if name not in (PHASE1, COFT, PLUS)},
    "CoFT, Phase I - zero-shot CLIP": (PHASE1, "ZeroshotCLIP"),
    "CoFT, Phase II - Phase I": (COFT, PHASE1),
    "CoFT+ - CoFT": (PLUS, COFT),
    "CoFT+ - CoOp, 16-shot, labels": (PLUS, "CoOp, 16 shots"),
}
PHOTO_SETS = {"IntelScenes": "Intel scenes", "CIFAR10": "CIFAR-10"}
BY_PAIR = ("CoFT - zero-shot CLIP", "CoFT - UPL", "CoFT - SelfTraining", "CoFT, Phase II - Phase I", "CoFT+ - CoFT")


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


def photographs(runs: pd.DataFrame) -> str:
    """Test accuracy with a CLIP of photographs, errors of CoFT by those of UPL, and how well p_clean tells."""
    sets = list(dict.fromkeys(runs["dataset"]))
    mean = runs.groupby(["method", "dataset"])["accuracy"].mean()
    last = runs[runs["method"] == COFT].groupby("dataset").mean(numeric_only=True)
    rows = [[name, *(shown(mean[method, data]) for data in sets)] for method, name in METHODS.items() if method in mean]
    ratios = [(100 - mean[COFT, data]) / (100 - mean["UPL", data]) for data in sets]
    rows.append(["errors of CoFT / of UPL", *(shown(ratio, form=".2f") for ratio in ratios)])
    for title, column in (("p_clean", "auroc_p_clean_both"), ("the softmax", "auroc_confidence_both")):
        rows.append([f"last labels, AUROC of {title}", *(shown(last[column][data], form=".3f") for data in sets)])
    return markdown(["", *(PHOTO_SETS[data] for data in sets)], rows)


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
