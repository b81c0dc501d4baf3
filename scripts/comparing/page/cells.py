"""Names and cells of the tables of docs/results.md."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

from ..statistics import half_interval_of
from ..tables import plain_zero

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
