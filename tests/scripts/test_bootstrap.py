"""The paired bootstrap, where its answer is known."""

import numpy as np
import pytest

from scripts.comparing.bootstrap import errors, interval, resampled


def right(rate: float, seeds: int, images: int, source: np.random.Generator) -> np.ndarray:
    return source.random((seeds, images)) < rate


def test_one_methods_interval_is_that_of_a_binomial() -> None:
    source = np.random.default_rng(1)
    found = right(0.8, 1, 2000, source)
    low, high = interval(resampled([[(found,)]])[:, 0])
    spread = 1.96 * np.sqrt(0.8 * 0.2 / 2000)
    assert errors([[(found,)]])[0] == pytest.approx(1 - found.mean())
    assert high - low == pytest.approx(2 * spread, rel=0.15)


def test_pairing_tells_methods_apart_that_differ_on_few_images() -> None:
    source = np.random.default_rng(2)
    first = right(0.7, 3, 1000, source)
    second = first.copy()
    second[:, :20] = True
    drawn = resampled([[(first, second)]])
    low, high = interval(drawn[:, 0] - drawn[:, 1])
    assert 0 < low < np.subtract(*errors([[(first, second)]])) < high < 0.02


def test_equal_methods_have_no_difference_and_a_single_seed_serves_all() -> None:
    source = np.random.default_rng(3)
    many, one = right(0.6, 5, 300, source), right(0.6, 1, 300, source)
    drawn = resampled([[(many, many, one)]], draws=50)
    assert np.array_equal(drawn[:, 0], drawn[:, 1]) and not np.array_equal(drawn[:, 0], drawn[:, 2])


RATES = (0.9, 0.5, 0.7, 0.8)


def width(datasets: list[list[tuple[np.ndarray, ...]]]) -> float:
    drawn = resampled(datasets)
    low, high = interval(drawn[:, 0] / drawn[:, 1])
    return high - low


def test_several_data_sets_are_wider_than_each_where_they_disagree() -> None:
    source = np.random.default_rng(4)
    datasets = [[(right(rate, 2, 2000, source), right(0.7, 2, 2000, source))] for rate in RATES]
    assert width(datasets) > 2 * width(datasets[:1])


def test_a_data_set_s_second_unit_is_no_second_data_set() -> None:
    source = np.random.default_rng(4)
    units = [(right(rate, 3, 1000, source), right(0.7, 3, 1000, source)) for rate in RATES]
    once, twice, apart = [[u] for u in units], [[u, u] for u in units], [[u] for u in units for _ in range(2)]
    assert np.allclose(errors(once), errors(twice)) and np.allclose(errors(once), errors(apart))
    assert width(twice) == pytest.approx(width(once), rel=0.1) and width(apart) < 0.8 * width(once)


def test_a_mean_is_over_units_whatever_data_sets_they_are_of() -> None:
    source = np.random.default_rng(5)
    one, two, three = ((right(rate, 1, 4000, source),) for rate in (0.9, 0.5, 0.4))
    expected = np.mean([1 - unit[0].mean() for unit in (one, two, three)])
    assert errors([[one, two], [three]])[0] == pytest.approx(expected)
    drawn = resampled([[one, two], [three]], draws=100)[:, 0]
    assert set(np.round(drawn, 1)) == {0.3, 0.4, 0.6}  # the first alone, both, the second alone


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_spread_as_their_unbiased_variance_says(seeds: int) -> None:
    rates = np.linspace(0.2, 0.8, seeds)
    found = np.stack([np.arange(50_000) % 1000 < 1000 * rate for rate in rates])
    drawn = resampled([[(found,)]])[:, 0]
    assert drawn.std() == pytest.approx(rates.std(ddof=1) / np.sqrt(seeds), rel=0.06)
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)
