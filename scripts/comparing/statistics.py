"""Means over seeds and over data sets, paired differences, and the paired bootstrap, with 95 % intervals."""

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


def half_interval_of(values: pd.Series) -> float:
    """Half the width of the interval of the mean of some values, by Student's t; NaN of one, which has none."""
    count = values.count()
    return float(stats.t.ppf(0.5 + LEVEL / 2, count - 1.0) * values.std() / np.sqrt(count))


def mean_over_pairs(runs: pd.DataFrame, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Average over all pairs of data set and backbone.

    Args:
        runs: A line for each run.
        name: Column that tells the rows of a table apart.
        columns: What is averaged.

    Returns:
        A line for each row and seed that has all pairs.
    """
    by_pair = runs.groupby([name, "seed", *PAIR], sort=False)[list(columns)].mean()
    groups = by_pair.groupby([name, "seed"], sort=False)
    return groups.mean()[groups.size() == runs.groupby(PAIR).ngroups].reset_index()


# ---------------------------------------------------------------- comparisons


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
    table.insert(8, "difference", table["mean"] - table.join(zero_shot.astype(float), on=PAIR)["accuracy"])
    return table


def overall(runs: pd.DataFrame) -> pd.DataFrame:
    """Average over all pairs of data set and backbone, for methods that have results on all of them.

    For each seed the mean over the pairs; of these, mean and standard deviation over seeds. The difference to zero-shot
    has an interval over pairs: how far the mean may be from that over other data sets.

    Returns:
        A line for each method: seeds, mean, std, difference to zero-shot, between (half of its interval). Empty if
        there is one pair.
    """
    if runs.groupby(PAIR).ngroups < 2:
        return pd.DataFrame()
    # A method with one run of each pair, as one that draws nothing has, counts as of one seed, whichever those have.
    seeds = runs.groupby(["method", *PAIR])["seed"].nunique().groupby("method").max()
    means = mean_over_pairs(
        runs.assign(seed=runs["seed"].where(runs["method"].map(seeds) > 1, 1)), "method", ["accuracy"]
    )
    groups = means.groupby("method", sort=False)
    table = groups.agg(seeds=("seed", "nunique"), mean=("accuracy", "mean"), std=("accuracy", "std")).reset_index()
    is_zero_shot = table["method"].isin(set(runs.loc[runs["trainer"] == ZERO_SHOT, "method"]))
    base = table.loc[is_zero_shot, "mean"]
    table["difference"] = table["mean"] - (base.iloc[0] if len(base) else float("nan"))
    gains = summarise(runs).groupby("method")["difference"].agg(half_interval_of)
    table["between"] = table["method"].map(gains).where(~is_zero_shot)
    return table


def gain_over_zero_shot(summary: pd.DataFrame) -> pd.DataFrame:
    """Gains of the methods that use no label, on all pairs of data set and backbone that have a zero-shot result.

    Args:
        summary: As `summarise` makes it.

    Returns:
        Its lines but those of zero-shot itself (difference 0 without a spread), with a column `zero_shot`, in order
        of it; empty where there are fewer than two pairs.
    """
    gains = summary[summary["difference"].notna() & (summary["labels_used"] == 0) & (summary["trainer"] != ZERO_SHOT)]
    gains = gains.assign(zero_shot=gains["mean"] - gains["difference"]).sort_values("zero_shot", kind="stable")
    return gains if gains.groupby(PAIR).ngroups > 1 else gains.iloc[:0]


# ---------------------------------------------------------------- ablations

OF_LABELS = ("coverage", "precision", "auroc_p_clean", "auroc_confidence")  # of Phase II, where a run has them
AVERAGED = ["phase1", "phase2", "final", *OF_LABELS, "seconds"]


def changes_of(rows: pd.DataFrame, measures: Mapping[str, str], reference: str) -> pd.DataFrame:
    """Bring the results of each run to one line, and subtract those of the reference on the same data and seed.

    Args:
        rows: A line for each result (a stage of a run): variant, dataset, backbone, seed, stage, accuracy, and where
            known peer_a, peer_b, the numbers of labels in Phase II, and seconds.
        measures: For each variant what counts: "both", "single" (mean of the single peers), or "after Phase I".
        reference: A variant. Runs that it has no partner for are left out.

    Returns:
        A line for each variant, data set, backbone and seed: phase1, phase2 (accuracies after the phases, NaN without
        phases), final (what counts), the numbers of labels, seconds, and phase1_change and change (of `final`), which
        are NaN for the reference itself.
    """
    run, keys = [*PAIR, "variant", "seed"], [*PAIR, "seed"]
    rows = rows.reindex(columns=[*run, "stage", "accuracy", "peer_a", "peer_b", *OF_LABELS, "seconds"])
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
        Means of accuracies and numbers; mean and standard deviation (of the sample) of the paired differences after
        Phase I (phase1_change, phase1_std) and at the end (change, std), the latter with half of its interval.
    """
    return _average(changes, [*PAIR, "variant"])


def overall_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """Average over all pairs of data set and backbone, seed by seed, then over seeds.

    Returns:
        A line for each variant that has all pairs, as `summarise_changes` makes it, but with the interval of the
        difference over pairs (half of it: between); empty if there is one pair alone.
    """
    if changes.groupby(PAIR).ngroups < 2:
        return pd.DataFrame()
    means = mean_over_pairs(changes, "variant", [*AVERAGED, "phase1_change", "change"])
    by_pair = changes.groupby(["variant", *PAIR])["change"].mean()
    table = _average(means, ["variant"]).drop(columns="interval")
    return table.assign(between=table["variant"].map(by_pair.groupby("variant").agg(half_interval_of)))


def _average(changes: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    groups = changes.groupby(keys, sort=False)
    table = groups.agg(seeds=("seed", "nunique"), **{name: (name, "mean") for name in AVERAGED})
    for name, spread in (("phase1_change", "phase1_std"), ("change", "std")):
        table[name], table[spread] = groups[name].mean(), groups[name].std()
    table["interval"] = groups["change"].agg(half_interval_of)
    return table.reset_index()


# ---------------------------------------------------------------- bootstrap

DRAWS = 2000
Right = NDArray[np.bool_]  # (seeds, images): whether a method is right
Units = Sequence[tuple[Right, ...]]  # of one data set


def resampled(datasets: Sequence[Units], draws: int = DRAWS, seed: int = 0) -> NDArray[np.float64]:
    """Error rates of methods under the bootstrap: how far they could be from what other draws would give.

    In each draw the data sets are drawn with replacement where there are several, then each one's images, then seeds of
    each of its units. All methods get the same. Units of one data set are drawn together, for they are alike: they
    share images and classes. n seeds spread by sqrt(n / (n - 1)) too little, which is made up for; a single one shows
    nothing of how far another would be.

    Args:
        datasets: For each, its units, a checkpoint each: what each method has right. Methods of a unit share seeds and
            images. A method with one seed is the same under all.
        draws: How many.
        seed: Of the draws.

    Returns:
        Mean error rate over units. Shape (draws, methods).
    """
    sums = np.stack([_drawn(units, draws, (seed, place)) for place, units in enumerate(datasets)], axis=1)
    sizes = np.array([len(units) for units in datasets])
    which = np.random.default_rng(seed).integers(len(datasets), size=(draws, len(datasets)))
    summed: NDArray[np.float64] = sums[np.arange(draws)[:, None], which].sum(axis=1)
    return summed / sizes[which].sum(axis=1, keepdims=True)


def _drawn(units: Units, draws: int, key: tuple[int, int]) -> NDArray[np.float64]:
    """Error rates, summed over units. Shape (draws, methods)."""
    source, result = np.random.default_rng(key), np.zeros((draws, len(units[0])))
    for unit in units:
        images, seeds = unit[0].shape[1], max(len(right) for right in unit)
        chosen = source.integers(seeds, size=(draws, seeds))
        for place, right in enumerate(unit):
            wrong = 1 - _counts(images, draws, key) @ right.T.astype(np.float32) / images  # (draws, seeds of right)
            result[:, place] += _spread(wrong, np.take_along_axis(wrong, chosen % len(right), axis=1))
    return result


@lru_cache(maxsize=32)
def _counts(images: int, draws: int, key: tuple[int, int]) -> NDArray[np.float32]:
    """How often each image is drawn. Shape (draws, images)."""
    source = np.random.default_rng((*key, images))
    rows = (np.bincount(source.integers(images, size=images), minlength=images) for _ in range(draws))
    return np.stack([row.astype(np.float32) for row in rows])


def _spread(all_seeds: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of those drawn, as far from that of all as it is without the bias of few seeds; at least 0."""
    seeds, mean = all_seeds.shape[1], all_seeds.mean(axis=1)
    spread: NDArray[np.float64] = mean + (drawn.mean(axis=1) - mean) * np.sqrt(seeds / max(1, seeds - 1))
    return spread.clip(0)


def errors(datasets: Sequence[Units]) -> NDArray[np.float64]:
    """Mean error rate of each method over units."""
    return np.array([[1 - right.mean() for right in unit] for units in datasets for unit in units]).mean(axis=0)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of some values."""
    low, high = np.quantile(values, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)
