"""Means over seeds and data sets, paired differences, and the paired bootstrap, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

PAIR = ["dataset", "backbone"]
ZERO_SHOT = "ZeroshotCLIP"
OPTIONAL = ("peer_a", "peer_b", "labels_used", "ensemble", "seconds")
LEVEL = 0.95
STAGES = FIRST, LAST = ("after Phase I", "after Phase II")


def half_interval(values: pd.Series) -> float:
    """Return half the width of the 95 % interval of a mean, by Student's t; NaN for a single value."""
    count = values.count()
    return float(stats.t.ppf(0.5 + LEVEL / 2, count - 1.0) * values.std() / np.sqrt(count))


def mean_over_pairs(runs: pd.DataFrame, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Average over all pairs of data set and backbone.

    Args:
        runs: A line for each run.
        name: Column with the names of the table's rows.
        columns: Columns to average.

    Returns:
        A line for each row name and seed with results on all pairs.
    """
    by_pair = runs.groupby([name, "seed", *PAIR], sort=False)[list(columns)].mean()
    groups = by_pair.groupby([name, "seed"], sort=False)
    return groups.mean()[groups.size() == runs.groupby(PAIR).ngroups].reset_index()


# ---------------------------------------------------------------- comparisons


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds.

    Args:
        runs: A line for each result: dataset, backbone, method, trainer, seed, accuracy (percent), and where known
            peer_a, peer_b (accuracies of single models), ensemble, labels_used, seconds, and tested (a text that says
            which test images; a difference is between runs with the same).

    Returns:
        A line for each data set, backbone and method, in order of appearance: trainer, seeds, mean, std (of the
        sample), interval (half its width), difference of the mean to zero-shot's, and the means of the rest.
    """
    runs = runs.reindex(columns=[*runs.columns, *(name for name in OPTIONAL if name not in runs)])
    tested = runs["tested"].fillna("") if "tested" in runs else ""
    runs = runs.assign(single=runs[["peer_a", "peer_b"]].astype(float).mean(axis=1), tested=tested)
    table = (
        runs.groupby([*PAIR, "method"], sort=False)
        .agg(
            trainer=("trainer", "first"),
            seeds=("seed", "nunique"),
            mean=("accuracy", "mean"),
            std=("accuracy", "std"),
            interval=("accuracy", half_interval),
            single=("single", "mean"),
            ensemble=("ensemble", "first"),
            labels_used=("labels_used", "first"),
            seconds=("seconds", "mean"),
            tested=("tested", "first"),
        )
        .reset_index()
    )
    references = runs[runs["trainer"] == ZERO_SHOT]  # with other settings, there are several: the first by name counts
    place = [*PAIR, "tested"]
    references = references[references["method"] == references.groupby(place)["method"].transform("min")]
    zero_shot = references.groupby(place)["accuracy"].mean()
    table.insert(8, "difference", table["mean"] - table.join(zero_shot.astype(float), on=place)["accuracy"])
    return table.drop(columns="tested")


def overall(runs: pd.DataFrame) -> pd.DataFrame:
    """Average over all pairs of data set and backbone, for methods that have results on all of them.

    Accuracies are averaged over the pairs for each seed; mean and standard deviation are over seeds. The difference to
    zero-shot is the mean over the pairs, with an interval: how far it may be from the one over other data sets.

    Returns:
        A line for each method: seeds, mean, std, difference to zero-shot, between (half of its interval). Empty if
        there is only one pair.
    """
    if runs.groupby(PAIR).ngroups < 2:
        return pd.DataFrame()
    # A method with one run of each pair, such as a deterministic one, counts as one seed, whatever the seeds are.
    seeds = runs.groupby(["method", *PAIR])["seed"].nunique().groupby("method").max()
    means = mean_over_pairs(
        runs.assign(seed=runs["seed"].where(runs["method"].map(seeds) > 1, 1)), "method", ["accuracy"]
    )
    groups = means.groupby("method", sort=False)
    table = groups.agg(seeds=("seed", "nunique"), mean=("accuracy", "mean"), std=("accuracy", "std")).reset_index()
    is_zero_shot = table["method"].isin(set(runs.loc[runs["trainer"] == ZERO_SHOT, "method"]))
    gains = summarise(runs).groupby("method")["difference"]
    table["difference"] = table["method"].map(gains.agg(lambda values: values.mean(skipna=False)))
    table["between"] = table["method"].map(gains.agg(half_interval)).where(~is_zero_shot)
    return table


# ---------------------------------------------------------------- ablations

LABEL_COLUMNS = ("coverage", "precision", "auroc_p_clean", "auroc_confidence")  # in Phase II, if a run has them
AVERAGED = ["phase1", "phase2", "final", *LABEL_COLUMNS, "seconds"]


def paired_changes(rows: pd.DataFrame, measures: Mapping[str, str], reference: str) -> pd.DataFrame:
    """Merge the results of each run into one line, with the differences to the reference on the same data and seed.

    Args:
        rows: A line for each result (a stage of a run): variant, dataset, backbone, seed, stage, accuracy, and where
            known peer_a, peer_b, the columns `LABEL_COLUMNS`, and seconds.
        measures: For each variant the accuracy that counts: "both", "single" (mean of the single peers), or "after
            Phase I".
        reference: Name of the reference variant. Runs without a matching run of it are left out.

    Returns:
        A line for each variant, data set, backbone and seed: phase1, phase2 (accuracies after the phases, NaN without
        phases), final (the accuracy that counts), the columns `LABEL_COLUMNS`, seconds, and phase1_change and change
        (the differences in phase1 and final), which are NaN for the reference itself.
    """
    run, keys = [*PAIR, "variant", "seed"], [*PAIR, "seed"]
    rows = rows.reindex(columns=[*run, "stage", "accuracy", "peer_a", "peer_b", *LABEL_COLUMNS, "seconds"])
    measure = rows["variant"].map(measures)
    single = rows[["peer_a", "peer_b"]].mean(axis=1, skipna=False)
    rows = rows.assign(final=rows["accuracy"].where(measure != "single", single))
    rows = rows[(measure != "after Phase I") | (rows["stage"] == FIRST)]
    lines = rows.groupby(run, sort=False).tail(1)  # the last stage that counts
    for column, stage in (("phase1", FIRST), ("phase2", LAST)):
        values = rows.loc[rows["stage"] == stage, [*run, "final"]].rename(columns={"final": column})
        lines = lines.merge(values, on=run, how="left")
    lines = lines[[*run, *AVERAGED]].astype(dict.fromkeys(AVERAGED, float))
    base = lines.loc[lines["variant"] == reference, [*keys, "phase1", "final"]]
    lines = lines.merge(base, on=keys, suffixes=("", "_reference"))
    other = lines["variant"] != reference
    return lines.assign(
        phase1_change=(lines["phase1"] - lines["phase1_reference"]).where(other),
        change=(lines["final"] - lines["final_reference"]).where(other),
    ).drop(columns=["phase1_reference", "final_reference"])


def summarise_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds: a line for each data set, backbone and variant.

    Returns:
        Means of the columns `AVERAGED`; mean and standard deviation (of the sample) of the paired differences after
        Phase I (phase1_change, phase1_std) and at the end (change, std), the latter with half of its interval.
    """
    return _average(changes, [*PAIR, "variant"])


def overall_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """Average over all pairs of data set and backbone, seed by seed, then over seeds.

    Returns:
        A line for each variant with results on all pairs, as `summarise_changes` returns it, but with half the interval
        over pairs (between) instead of the one over seeds; empty if there is only one pair.
    """
    if changes.groupby(PAIR).ngroups < 2:
        return pd.DataFrame()
    means = mean_over_pairs(changes, "variant", [*AVERAGED, "phase1_change", "change"])
    by_pair = changes.groupby(["variant", *PAIR])["change"].mean()
    table = _average(means, ["variant"]).drop(columns="interval")
    return table.assign(between=table["variant"].map(by_pair.groupby("variant").agg(half_interval)))


def _average(changes: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    groups = changes.groupby(keys, sort=False)
    table = groups.agg(seeds=("seed", "nunique"), **{name: (name, "mean") for name in AVERAGED})
    for name, spread in (("phase1_change", "phase1_std"), ("change", "std")):
        table[name], table[spread] = groups[name].mean(), groups[name].std()
    table["interval"] = groups["change"].agg(half_interval)
    return table.reset_index()


# ---------------------------------------------------------------- bootstrap

DRAWS = 2000  # of the images and seeds of a data set
COMBINATIONS = 200_000  # of data sets; the interval of four ends at the 25th least
Right = NDArray[np.bool_]  # whether a method is right, shape (seeds, images)
Units = Sequence[tuple[Right, ...]]  # units of one data set, each with an entry per method


def bootstrap_errors(datasets: Sequence[Units], draws: int = DRAWS, seed: int = 0) -> NDArray[np.float64]:
    """Compute error rates of methods under the bootstrap over data sets, images and seeds.

    Each draw resamples with replacement the data sets (if there are several), then the images of each data set, then
    the seeds of each of its units. A data set that is drawn twice has other images and seeds the second time. All
    methods get the same draws, so they can be compared in pairs. Units of one data set are drawn together because they
    share images and classes. Resampling n seeds spreads too little by a factor of
    sqrt((n - 1) / n), which is corrected; a single seed has no information on the spread over seeds.

    Args:
        datasets: Units of each data set, one per checkpoint: for each method whether it is right. Methods of a unit
            share seeds and images. A method with one seed is repeated for all seeds.
        draws: Number of draws of the images and seeds of each data set.
        seed: Seed of the random generator.

    Returns:
        Mean error rate over units. Shape (`draws`, methods), with several data sets (`COMBINATIONS`, methods).
    """
    sums = np.stack([_bootstrap_sums(units, draws, (seed, place)) for place, units in enumerate(datasets)], axis=1)
    sizes, shape = np.array([len(units) for units in datasets]), (COMBINATIONS, len(datasets))
    if len(datasets) == 1:
        return sums[:, 0] / sizes
    source = np.random.default_rng((seed, len(datasets), 0, 1))
    which, draw = source.integers(len(datasets), size=shape), source.integers(draws, size=shape)
    summed: NDArray[np.float64] = sums[draw, which].sum(axis=1)
    return summed / sizes[which].sum(axis=1, keepdims=True)


def _bootstrap_sums(units: Units, draws: int, key: tuple[int, int]) -> NDArray[np.float64]:
    """Return error rates summed over units. Shape (draws, methods)."""
    source, result = np.random.default_rng(key), np.zeros((draws, len(units[0])))
    for unit in units:
        images, seeds = unit[0].shape[1], max(len(right) for right in unit)
        chosen = source.integers(seeds, size=(draws, seeds))
        for place, right in enumerate(unit):
            wrong = 1 - _counts(images, draws, key) @ right.T.astype(np.float32) / images  # (draws, seeds of right)
            result[:, place] += _corrected_for_few_seeds(wrong, np.take_along_axis(wrong, chosen % len(right), axis=1))
    return result


@lru_cache(maxsize=32)
def _counts(images: int, draws: int, key: tuple[int, int]) -> NDArray[np.float32]:
    """Return how often each image is drawn. Shape (draws, images)."""
    source = np.random.default_rng((*key, images))
    rows = (np.bincount(source.integers(images, size=images), minlength=images) for _ in range(draws))
    return np.stack([row.astype(np.float32) for row in rows])


def _corrected_for_few_seeds(all_seeds: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over drawn seeds, its deviation from that of all seeds corrected for few seeds; within [0, 1]."""
    seeds, mean = all_seeds.shape[1], all_seeds.mean(axis=1)
    spread: NDArray[np.float64] = mean + (drawn.mean(axis=1) - mean) * np.sqrt(seeds / max(1, seeds - 1))
    return spread.clip(0, 1)


def mean_errors(datasets: Sequence[Units]) -> NDArray[np.float64]:
    """Return the mean error rate of each method over units."""
    return np.array([[1 - right.mean() for right in unit] for units in datasets for unit in units]).mean(axis=0)


def interval(values: NDArray[np.float64], groups: int = 1) -> tuple[float, float]:
    """Return the ends of the 95 % interval of bootstrap draws.

    If a few groups (data sets) were resampled, draws spread too little. The interval then has the draws' quantiles at
    Phi(sqrt(n / (n - 1)) t), for n groups and the quantile t of Student's distribution with n - 1 degrees of freedom
    (expanded percentile interval, Hesterberg 2015). With fewer than five groups it is still too narrow.

    Args:
        values: The draws.
        groups: Number of resampled groups; 1 if none were.
    """
    tail = 0.5 - LEVEL / 2
    if groups > 1:
        tail = stats.norm.cdf(np.sqrt(groups / (groups - 1)) * stats.t.ppf(tail, groups - 1.0))
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")  # ratios may be infinite
    return float(low), float(high)
