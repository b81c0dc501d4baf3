"""The paired bootstrap, where its answer is known."""

import numpy as np
import pytest

from scripts.comparing.bootstrap import errors, interval, resampled


def right(rate: float, seeds: int, images: int, source: np.random.Generator) -> np.ndarray:
    return source.random((seeds, images)) < rate


def test_one_methods_interval_is_that_of_a_binomial() -> None:
    source = np.random.default_rng(1)
    found = right(0.8, 1, 2000, source)
    low, high = interval(resampled([(found,)])[:, 0])
    spread = 1.96 * np.sqrt(0.8 * 0.2 / 2000)
    assert errors([(found,)])[0] == pytest.approx(1 - found.mean())
    assert high - low == pytest.approx(2 * spread, rel=0.15)


def test_pairing_tells_methods_apart_that_differ_on_few_images() -> None:
    source = np.random.default_rng(2)
    first = right(0.7, 3, 1000, source)
    second = first.copy()
    second[:, :20] = True
    drawn = resampled([(first, second)])
    low, high = interval(drawn[:, 0] - drawn[:, 1])
    assert 0 < low < errors([(first, second)])[0] - errors([(first, second)])[1] < high < 0.02


def test_equal_methods_have_no_difference_and_a_single_seed_serves_all() -> None:
    source = np.random.default_rng(3)
    many, one = right(0.6, 5, 300, source), right(0.6, 1, 300, source)
    drawn = resampled([(many, many, one)], draws=50)
    assert np.array_equal(drawn[:, 0], drawn[:, 1]) and not np.array_equal(drawn[:, 0], drawn[:, 2])


def test_several_units_are_wider_than_each_where_they_disagree() -> None:
    source = np.random.default_rng(4)
    units = [(right(rate, 2, 2000, source), right(0.7, 2, 2000, source)) for rate in (0.9, 0.5, 0.7, 0.8)]
    drawn = resampled(units)
    low, high = interval(drawn[:, 0] / drawn[:, 1])
    alone = interval(np.divide(*resampled(units[:1]).T))
    assert high - low > 2 * (alone[1] - alone[0])
