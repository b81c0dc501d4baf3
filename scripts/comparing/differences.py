"""Statistics of ablations: differences to the full method, paired by data set, backbone and seed."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from .results import STAGES
from .statistics import PAIR, half_interval_of

FIRST, LAST = STAGES
NUMBERS = ("coverage", "precision", "auroc_p_clean", "auroc_confidence")  # of Phase II, where a run has them
MEANS = ["phase1", "phase2", "final", *NUMBERS, "seconds"]


def measured(rows: pd.DataFrame, measures: Mapping[str, str]) -> pd.DataFrame:
    """Bring all results of a run to one line.

    Args:
        rows: A line for each result (a stage of a run): variant, dataset, backbone, seed, stage, accuracy, and where
            known peer_a, peer_b, the numbers of Phase II, and seconds.
        measures: For each variant what counts: "both", "single" (mean of the single peers), or "after Phase I".

    Returns:
        A line for each variant, data set, backbone and seed: phase1, phase2 (accuracies after the phases, NaN without
        phases), final (what counts), the numbers of Phase II, seconds.
    """
    keys = [*PAIR, "variant", "seed"]
    rows = rows.reindex(columns=[*keys, "stage", "accuracy", "peer_a", "peer_b", *NUMBERS, "seconds"])
    measure = rows["variant"].map(measures)
    single = rows[["peer_a", "peer_b"]].mean(axis=1, skipna=False)
    rows = rows.assign(final=rows["accuracy"].where(measure != "single", single))
    rows = rows[(measure != "after Phase I") | (rows["stage"] == FIRST)]
    lines = rows.groupby(keys, sort=False).tail(1)  # the last stage that counts
    for column, stage in (("phase1", FIRST), ("phase2", LAST)):
        values = rows.loc[rows["stage"] == stage, [*keys, "final"]].rename(columns={"final": column})
        lines = lines.merge(values, on=keys, how="left")
    return lines[[*keys, *MEANS]].astype(dict.fromkeys(MEANS, float))


def with_changes(runs: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Subtract from each run the reference's with the same data set, backbone and seed.

    Args:
        runs: As `measured` makes them.
        reference: A variant. Runs that it has no partner for are left out.

    Returns:
        The lines with columns phase1_change and change (of `final`), which are NaN for the reference itself.
    """
    keys = [*PAIR, "seed"]
    base = runs.loc[runs["variant"] == reference, [*keys, "phase1", "final"]]
    paired = runs.merge(base, on=keys, suffixes=("", "_reference"))
    other = paired["variant"] != reference
    return paired.assign(
        phase1_change=(paired["phase1"] - paired["phase1_reference"]).where(other),
        change=(paired["final"] - paired["final_reference"]).where(other),
    ).drop(columns=["phase1_reference", "final_reference"])


def summarise_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds: a line for each data set, backbone and variant.

    Returns:
        Means of accuracies and numbers; mean and standard deviation (of the sample) of the paired differences after
        Phase I (phase1_change, phase1_std) and at the end (change, std), the latter with half of its interval.
    """
    return _average(changes, PAIR)


def overall_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """Average over all pairs of data set and backbone, seed by seed, then over seeds.

    Returns:
        A line for each variant that has all pairs, as `summarise_changes` makes it, but with the interval of the
        difference over pairs (half of it: between); empty if there is one pair alone.
    """
    pairs = changes.groupby(PAIR).ngroups
    if pairs < 2:
        return pd.DataFrame()
    groups = changes.groupby(["variant", "seed"], sort=False)
    means = groups[[*MEANS, "phase1_change", "change"]].mean()
    table = _average(means[groups.size() == pairs].reset_index(), []).drop(columns="interval")
    by_pair = changes.groupby(["variant", *PAIR])["change"].mean()
    return table.assign(between=table["variant"].map(by_pair.groupby("variant").agg(half_interval_of)))


def _average(changes: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    groups = changes.groupby([*keys, "variant"], sort=False)
    table = groups.agg(seeds=("seed", "nunique"), **{name: (name, "mean") for name in MEANS})
    for name, spread in (("phase1_change", "phase1_std"), ("change", "std")):
        table[name], table[spread] = groups[name].mean(), groups[name].std()
    table["interval"] = groups["change"].agg(half_interval_of)
    return table.reset_index()
