"""Means, intervals, paired differences and the bootstrap, against sums by hand or known answers."""

from __future__ import annotations

from statistics import mean, stdev

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scripts.comparing.methods import FULL
from scripts.comparing.statistics import (
    STAGES,
    bootstrap_errors,
    interval,
    mean_errors,
    overall,
    overall_changes,
    paired_changes,
    summarise,
    summarise_changes,
)

PAIRS = [("Digits", "embedded"), ("Digits", "embedded-vit"), ("Icons", "embedded")]
SEEDS = (1, 2, 3)
T = 4.302653  # Student's t of three values, 95 %
T2 = 12.7062  # of two


# ------------------------------------------------------------------ comparisons


@pytest.fixture
def runs() -> pd.DataFrame:
    """Made-up results; CoOp lacks a pair, zero-shot was run once on each."""
    rng = np.random.default_rng(0)
    rows = []
    for dataset, backbone in PAIRS:
        for method in ("ZeroshotCLIP", "UPL", "CoFT", "CoOp"):
            for seed in SEEDS[:1] if method == "ZeroshotCLIP" else SEEDS:
                if (method, dataset) != ("CoOp", "Icons"):
                    row = {"dataset": dataset, "backbone": backbone, "method": method, "variant": method}
                    row |= {"trainer": method, "stage": "end", "seed": seed, "accuracy": rng.uniform(50, 90)}
                    rows.append({**row, "seconds": rng.uniform(1, 9), "labels_used": 0, "ensemble": 1})
    return pd.DataFrame(rows)


def values(runs: pd.DataFrame, method: str, pair: tuple[str, str]) -> list[float]:
    return [row.accuracy for row in runs.itertuples() if row.method == method and (row.dataset, row.backbone) == pair]


def test_means_deviations_and_intervals_over_seeds(runs: pd.DataFrame) -> None:
    table = summarise(runs)
    assert len(table) == 11
    for row in table.itertuples():
        accuracies = values(runs, row.method, (row.dataset, row.backbone))
        zero_shot = mean(values(runs, "ZeroshotCLIP", (row.dataset, row.backbone)))
        assert row.seeds == len(accuracies) and row.mean == pytest.approx(mean(accuracies))
        assert row.difference == pytest.approx(mean(accuracies) - zero_shot)
        if len(accuracies) == 1:
            assert np.isnan(row.std) and np.isnan(row.interval)
        else:
            assert row.std == pytest.approx(stdev(accuracies))
            assert row.interval == pytest.approx(T * stdev(accuracies) / 3**0.5)
    assert summarise(runs[runs["trainer"] != "ZeroshotCLIP"])["difference"].isna().all()


def test_single_models_are_averaged_over_peers_and_seeds(runs: pd.DataFrame) -> None:
    peers = runs[runs["method"] == "CoFT"].assign(peer_a=[float(i) for i in range(9)], peer_b=10.0)
    table = summarise(pd.concat([runs[runs["method"] == "UPL"], peers]))
    single = {(row.method, row.dataset, row.backbone): row.single for row in table.itertuples()}
    assert single["CoFT", "Digits", "embedded"] == pytest.approx(mean([(i + 10) / 2 for i in (0, 1, 2)]))
    assert np.isnan(single["UPL", "Digits", "embedded"])


def test_overall_is_over_pairs_for_each_seed_and_leaves_out_who_lacks_one(runs: pd.DataFrame) -> None:
    table = {row.method: row for row in overall(runs).itertuples()}
    assert set(table) == {"ZeroshotCLIP", "UPL", "CoFT"}
    for method in ("UPL", "CoFT"):
        by_seed = [mean(values(runs, method, pair)[i] for pair in PAIRS) for i in range(3)]
        zero_shot = mean(values(runs, "ZeroshotCLIP", pair)[0] for pair in PAIRS)
        gains = [mean(values(runs, method, p)) - values(runs, "ZeroshotCLIP", p)[0] for p in PAIRS]
        row = table[method]
        assert (row.mean, row.std) == pytest.approx((mean(by_seed), stdev(by_seed)))
        assert row.difference == pytest.approx(mean(by_seed) - zero_shot)
        assert row.between == pytest.approx(T * stdev(gains) / 3**0.5)  # three pairs
    assert np.isnan(table["ZeroshotCLIP"].between)
    assert overall(runs[runs["dataset"] == "Icons"]).empty


def test_what_was_run_once_on_each_pair_counts_whichever_seeds_it_had(runs: pd.DataFrame) -> None:
    expected, once = overall(runs), runs["method"] == "ZeroshotCLIP"
    runs.loc[once, "seed"] = range(5, 5 + once.sum())
    pd.testing.assert_frame_equal(overall(runs), expected)


# ------------------------------------------------------------------ ablations

MEASURES = {FULL: "both", "rule": "both", "alone": "single", "short": "after Phase I", "rare": "both"}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Made-up results of five variants; `rare` lacks a pair."""
    rng = np.random.default_rng(0)
    lines = []
    for variant in MEASURES:
        for dataset, backbone in PAIRS[: 1 if variant == "rare" else 2]:
            for seed in SEEDS:
                for stage in STAGES:
                    line = {"variant": variant, "dataset": dataset, "backbone": backbone, "seed": seed, "stage": stage}
                    numbers = {name: rng.uniform(50, 90) for name in ("accuracy", "peer_a", "peer_b", "seconds")}
                    lines.append({**line, **numbers, "coverage": rng.uniform(), "precision": rng.uniform()})
    return pd.DataFrame(lines)


def accuracies(rows: pd.DataFrame, variant: str, pair: tuple[str, str], stage: str) -> list[float]:
    """The accuracy that counts, of the runs of a variant after a phase."""
    matching = [
        row
        for row in rows.to_dict("records")
        if (row["variant"], row["dataset"], row["backbone"], row["stage"]) == (variant, *pair, stage)
    ]
    return [(row["peer_a"] + row["peer_b"]) / 2 if variant == "alone" else row["accuracy"] for row in matching]


def differences(rows: pd.DataFrame, variant: str, pair: tuple[str, str], stages: tuple[str, str]) -> list[float]:
    """By seed: of a variant after the first stage to the full method after the second."""
    return list(
        np.subtract(accuracies(rows, variant, pair, stages[0]), accuracies(rows, FULL, pair, stages[1])),
    )


def test_differences_are_paired_by_seed(rows: pd.DataFrame) -> None:
    table = summarise_changes(paired_changes(rows, MEASURES, FULL))
    assert len(table) == 9
    for row in table.to_dict("records"):
        variant, pair = row["variant"], (row["dataset"], row["backbone"])
        last = STAGES[0] if variant == "short" else STAGES[1]
        assert row["phase1"] == pytest.approx(mean(accuracies(rows, variant, pair, STAGES[0])))
        assert row["final"] == pytest.approx(mean(accuracies(rows, variant, pair, last)))
        assert np.isnan(row["phase2"]) if variant == "short" else row["phase2"] == pytest.approx(row["final"])
        if variant == FULL:
            assert np.isnan(row["change"]) and np.isnan(row["phase1_change"])
            continue
        first = differences(rows, variant, pair, (STAGES[0], STAGES[0]))
        end = differences(rows, variant, pair, (last, STAGES[1]))
        assert [row["phase1_change"], row["phase1_std"]] == pytest.approx([mean(first), stdev(first)])
        assert [row["change"], row["std"]] == pytest.approx([mean(end), stdev(end)])
        assert row["interval"] == pytest.approx(T * stdev(end) / 3**0.5)


def test_the_mean_over_pairs_is_taken_seed_by_seed(rows: pd.DataFrame) -> None:
    changes = paired_changes(rows, MEASURES, FULL)
    over = {row["variant"]: row for row in overall_changes(changes).to_dict("records")}
    assert set(over) == set(MEASURES) - {"rare"}
    both = np.array([differences(rows, "rule", pair, (STAGES[1], STAGES[1])) for pair in PAIRS[:2]])
    by_seed = both.mean(axis=0)
    assert [over["rule"]["change"], over["rule"]["std"]] == pytest.approx([by_seed.mean(), by_seed.std(ddof=1)])
    assert over["rule"]["between"] == pytest.approx(T2 * both.mean(axis=1).std(ddof=1) / 2**0.5)
    assert overall_changes(changes[changes["backbone"] == "embedded"]).empty


def test_a_run_without_a_partner_is_left_out(rows: pd.DataFrame) -> None:
    some = rows[(rows["variant"] != FULL) | (rows["seed"] != 2)]
    assert set(summarise_changes(paired_changes(some, MEASURES, FULL))["seeds"]) == {2}


def test_both_tables_compare_with_the_same_zero_shot_runs() -> None:
    methods = {"zs": ("ZeroshotCLIP", 50.0), "zs X=1": ("ZeroshotCLIP", 60.0), "C": ("CoFT", 65.0)}
    runs = pd.DataFrame(
        [
            {"dataset": d, "backbone": "b", "method": m, "trainer": t, "seed": 1, "accuracy": a}
            for d in "xy"
            for m, (t, a) in methods.items()
        ]
    )
    for table in (summarise(runs), overall(runs)):
        assert dict(zip(table["method"], table["difference"], strict=False)) == {"zs": 0.0, "zs X=1": 10.0, "C": 15.0}


def test_a_difference_is_between_runs_on_the_same_test_images() -> None:
    rows = [("zs", "ZeroshotCLIP", "all", 50.0), ("U", "UPL", "all", 55.0), ("zs, base", "ZeroshotCLIP", "base", 90.0)]
    rows += [("U, base", "UPL", "base", 92.0), ("U, new", "UPL", "new", 91.0)]
    names = ["method", "trainer", "tested", "accuracy"]
    runs = pd.concat([pd.DataFrame(rows, columns=names).assign(dataset=d, backbone="b", seed=1) for d in "xy"])
    for table in (summarise(runs), overall(runs)):
        differences_of = dict(zip(table["method"], table["difference"], strict=True))
        assert np.isnan(differences_of.pop("U, new"))
        assert differences_of == {"zs": 0.0, "U": 5.0, "zs, base": 0.0, "U, base": 2.0}


# ------------------------------------------------------------------ bootstrap


def right(rate: float, seeds: int, images: int, source: np.random.Generator) -> np.ndarray:
    return source.random((seeds, images)) < rate


def test_one_methods_interval_is_that_of_a_binomial() -> None:
    hits = right(0.8, 1, 2000, np.random.default_rng(1))
    low, high = interval(bootstrap_errors([[(hits,)]])[:, 0])
    assert mean_errors([[(hits,)]])[0] == pytest.approx(1 - hits.mean())
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 2000), rel=0.15)


def test_equal_methods_have_no_difference_and_a_single_seed_serves_all() -> None:
    source = np.random.default_rng(3)
    many, one = right(0.6, 5, 300, source), right(0.6, 1, 300, source)
    drawn = bootstrap_errors([[(many, many, one)]], draws=50)
    assert np.array_equal(drawn[:, 0], drawn[:, 1]) and not np.array_equal(drawn[:, 0], drawn[:, 2])


RATES = (0.9, 0.5, 0.7, 0.8)


def width(datasets: list[list[tuple[np.ndarray, ...]]]) -> float:
    drawn = bootstrap_errors(datasets)
    low, high = interval(drawn[:, 0] / drawn[:, 1])
    return high - low


@pytest.mark.parametrize("order", [1, -1])
def test_data_sets_and_seeds_are_drawn_independently(order: int) -> None:
    varying, never_wrong = np.ones((2, 50), bool), np.ones((2, 50), bool)
    varying[1] = False
    drawn = bootstrap_errors([[(varying,)], [(never_wrong,)]][::order])[:, 0]
    assert drawn.mean() == pytest.approx(0.25, abs=0.03)  # half of the data sets, half of the seeds
    assert drawn.max() <= 1


def test_a_data_set_that_is_drawn_twice_has_other_images_the_second_time() -> None:
    units = [[(right(0.5, 1, 400, np.random.default_rng(place)),)] for place in range(2)]
    rates = [1 - unit[0][0].mean() for unit in units]
    between = np.var(rates) / 2  # of the mean of two data sets, drawn from two
    assert bootstrap_errors(units)[:, 0].var() == pytest.approx(between + 0.25 / 400 / 2, rel=0.05)


def test_intervals_over_four_data_sets_hardly_depend_on_the_seed() -> None:
    source = np.random.default_rng(6)
    units = [[(right(rate, 3, 500, source), right(0.7, 3, 500, source))] for rate in RATES]
    ends = [interval(np.divide(*bootstrap_errors(units, seed=seed).T), 4) for seed in range(3)]
    assert np.ptp(ends, axis=0) == pytest.approx([0, 0], abs=0.05)


def test_a_data_set_s_second_unit_is_no_second_data_set() -> None:
    source = np.random.default_rng(4)
    units = [(right(rate, 3, 1000, source), right(0.7, 3, 1000, source)) for rate in RATES]
    once, twice, apart = [[u] for u in units], [[u, u] for u in units], [[u] for u in units for _ in range(2)]
    assert np.allclose(mean_errors(once), mean_errors(twice)) and np.allclose(mean_errors(once), mean_errors(apart))
    assert width(twice) == pytest.approx(width(once), rel=0.1) and width(apart) < 0.8 * width(once)
    assert width(once) > 2 * width(once[:1])  # data sets disagree


def test_a_mean_is_over_units_whatever_data_sets_they_are_of() -> None:
    source = np.random.default_rng(5)
    one, two, three = ((right(rate, 1, 4000, source),) for rate in (0.9, 0.5, 0.4))
    expected = np.mean([1 - unit[0].mean() for unit in (one, two, three)])
    assert mean_errors([[one, two], [three]])[0] == pytest.approx(expected)
    drawn = bootstrap_errors([[one, two], [three]], draws=100)[:, 0]
    assert set(np.round(drawn, 1)) == {0.3, 0.4, 0.6}  # the first alone, both, the second alone


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_spread_as_their_unbiased_variance_says(seeds: int) -> None:
    rates = np.linspace(0.2, 0.8, seeds)
    hits = np.stack([np.arange(50_000) % 1000 < 1000 * rate for rate in rates])
    drawn = bootstrap_errors([[(hits,)]])[:, 0]
    assert drawn.std() == pytest.approx(rates.std(ddof=1) / np.sqrt(seeds), rel=0.06)
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("datasets", [6, 12])
def test_the_interval_over_few_data_sets_is_about_student_s(datasets: int) -> None:
    source = np.random.default_rng(datasets)
    share = []
    for _ in range(30):
        rates = source.normal(0.5, 0.1, datasets)
        draws = source.choice(rates, size=(4000, datasets)).mean(axis=1)
        low, high = interval(draws, datasets)
        exact = 2 * stats.t.ppf(0.975, datasets - 1) * rates.std(ddof=1) / np.sqrt(datasets)
        share.append((high - low) / exact)
    assert np.mean(share) == pytest.approx(1.0, abs=0.1)
