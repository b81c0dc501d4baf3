"""Means over seeds and over data sets, with 95 % intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

PAIR = ["dataset", "backbone"]
ZERO_SHOT = "ZeroshotCLIP"
OPTIONAL = ("peer_a", "peer_b", "labels_used", "ensemble", "seconds")
LEVEL = 0.95


def half_interval_of(values: pd.Series) -> float:
    """Half the width of the interval of the mean of some values, by Student's t; NaN of one, which has none."""
    count = values.count()
    return float(stats.t.ppf(0.5 + LEVEL / 2, count - 1.0) * values.std() / np.sqrt(count))


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds.

    Args:
        runs: A line for each result: dataset, backbone, method, trainer, seed, accuracy (percent), and where known
            peer_a, peer_b (accuracies of single models), ensemble, labels_used and seconds.

    Returns:
        A line for each data set, backbone and method, in the order they come: trainer, seeds, mean, std (of the
        sample), interval (half of its width), difference of the mean to zero-shot's, and the means of the rest.
    """
    runs = runs.reindex(columns=[*runs.columns, *(name for name in OPTIONAL if name not in runs)])
    runs = runs.assign(single=runs[["peer_a", "peer_b"]].astype(float).mean(axis=1))
    table = (
        runs.groupby([*PAIR, "method"], sort=False)
        .agg(
            trainer=("trainer", "first"),
            seeds=("seed", "nunique"),
            mean=("accuracy", "mean"),
            std=("accuracy", "std"),
            interval=("accuracy", half_interval_of),
            single=("single", "mean"),
            ensemble=("ensemble", "first"),
            labels_used=("labels_used", "first"),
            seconds=("seconds", "mean"),
        )
        .reset_index()
    )
    zero_shot = runs[runs["trainer"] == ZERO_SHOT].groupby(PAIR)["accuracy"].mean()
    base = pd.Series([zero_shot.get(pair) for pair in zip(*(table[key] for key in PAIR), strict=True)], dtype=float)
    table.insert(8, "difference", table["mean"] - base)
    return table


def overall(runs: pd.DataFrame) -> pd.DataFrame:
    """Average over all pairs of data set and backbone, for methods that have results on all of them.

    For each seed the mean over the pairs; of these, mean and standard deviation over seeds. The difference to zero-shot
    has an interval over pairs: how far the mean may be from that over other data sets.

    Returns:
        A line for each method: seeds, mean, std, difference to zero-shot, between (half of its interval). Empty if
        there is one pair.
    """
    if len(runs.groupby(PAIR)) < 2:
        return pd.DataFrame()
    groups = _over_pairs(runs).groupby("method", sort=False)
    table = groups.agg(seeds=("seed", "nunique"), mean=("accuracy", "mean"), std=("accuracy", "std")).reset_index()
    names = set(runs.loc[runs["trainer"] == ZERO_SHOT, "method"])
    base = table.loc[table["method"].isin(names), "mean"]
    table["difference"] = table["mean"] - (base.iloc[0] if len(base) else float("nan"))
    gains = summarise(runs).groupby("method")["difference"].agg(half_interval_of)
    table["between"] = table["method"].map(gains).where(~table["method"].isin(names))
    return table


def _over_pairs(runs: pd.DataFrame) -> pd.DataFrame:
    # A line for each method and seed that has all pairs. A method with one run of each pair, as one that draws nothing
    # has, counts as of one seed, whichever those runs have.
    seeds = runs.groupby(["method", *PAIR])["seed"].nunique().groupby("method").max()
    runs = runs.assign(seed=runs["seed"].where(runs["method"].map(seeds) > 1, 1))
    wide = runs.pivot_table(index=["method", "seed"], columns=PAIR, values="accuracy", sort=False)
    return wide.dropna().mean(axis=1).rename("accuracy").reset_index()
