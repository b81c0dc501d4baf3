from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scripts.comparing.statistics import overall, summarise

PAIRS = [("Digits", "embedded"), ("Digits", "embedded-vit"), ("Icons", "embedded")]
SEEDS = (1, 2, 3)
T = 4.302653  # Student's t of three values, 95 %


@pytest.fixture(scope="module")
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


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def deviation(numbers: list[float]) -> float:
    return (sum((x - mean(numbers)) ** 2 for x in numbers) / (len(numbers) - 1)) ** 0.5


def test_means_deviations_and_intervals_over_seeds(runs: pd.DataFrame) -> None:
    table = summarise(runs)
    assert len(table) == 11
    for row in table.itertuples():
        numbers = values(runs, row.method, (row.dataset, row.backbone))
        zero_shot = mean(values(runs, "ZeroshotCLIP", (row.dataset, row.backbone)))
        assert row.seeds == len(numbers) and row.mean == pytest.approx(mean(numbers))
        assert row.difference == pytest.approx(mean(numbers) - zero_shot)
        if len(numbers) == 1:
            assert np.isnan(row.std) and np.isnan(row.interval)
        else:
            assert row.std == pytest.approx(deviation(numbers))
            assert row.interval == pytest.approx(T * deviation(numbers) / 3**0.5)


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
        by_seed = [mean([values(runs, method, pair)[i] for pair in PAIRS]) for i in range(3)]
        assert table[method].mean == pytest.approx(mean(by_seed))
        assert table[method].std == pytest.approx(deviation(by_seed))
        zero_shot = mean([values(runs, "ZeroshotCLIP", pair)[0] for pair in PAIRS])
        assert table[method].difference == pytest.approx(mean(by_seed) - zero_shot)
        gains = [mean(values(runs, method, p)) - values(runs, "ZeroshotCLIP", p)[0] for p in PAIRS]
        assert table[method].between == pytest.approx(T * deviation(gains) / 3**0.5)  # three pairs
    assert np.isnan(table["ZeroshotCLIP"].between)
    assert overall(runs[runs["dataset"] == "Icons"]).empty


def test_what_was_run_once_on_each_pair_counts_whichever_seeds_it_had(runs: pd.DataFrame) -> None:
    expected = overall(runs)
    once = runs["method"] == "ZeroshotCLIP"
    runs.loc[once, "seed"] = range(5, 5 + once.sum())
    pd.testing.assert_frame_equal(overall(runs), expected)
