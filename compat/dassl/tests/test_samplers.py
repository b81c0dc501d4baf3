"""Properties of the samplers, for generated data sets."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dassl.data.samplers import build_sampler

seeds = st.integers(0, 2**16)
sizes = st.lists(st.integers(1, 12), min_size=1, max_size=5)


def source(counts: list[int], attribute: str) -> list[Any]:
    """Return shuffled items; counts[i] of them have the value i of an attribute."""
    items = [SimpleNamespace(**{attribute: value}) for value, count in enumerate(counts) for _ in range(count)]
    random.Random(0).shuffle(items)
    return items


def batches(indices: list[int], size: int) -> list[list[int]]:
    assert len(indices) % size == 0
    return [indices[i : i + size] for i in range(0, len(indices), size)]


@given(counts=sizes, each=st.integers(1, 4), n_domain=st.integers(-1, 5), seed=seeds)
def test_random_domains(counts: list[int], each: int, n_domain: int, seed: int) -> None:
    assume(n_domain <= len(counts) and min(counts) >= each)
    chosen = n_domain if n_domain > 0 else len(counts)
    data, size = source(counts, "domain"), each * chosen
    random.seed(seed)
    sampler = build_sampler("RandomDomainSampler", data_source=data, batch_size=size, n_domain=n_domain)
    indices = list(sampler)
    assert len(set(indices)) == len(indices)
    for batch in batches(indices, size):
        assert list(Counter(data[i].domain for i in batch).values()) == [each] * chosen
    remaining = Counter(item.domain for item in data) - Counter(data[i].domain for i in indices)
    assert min(remaining[domain] for domain in range(len(counts))) < each
    if chosen == len(counts):
        assert len(sampler) == len(indices) == min(counts) // each * size  # type: ignore[arg-type]


@given(counts=sizes, each=st.integers(1, 4), seed=seeds)
def test_sequential_domains(counts: list[int], each: int, seed: int) -> None:
    assume(min(counts) >= each)
    data, size = source(counts, "domain"), each * len(counts)
    random.seed(seed)
    sampler = build_sampler("SeqDomainSampler", data_source=data, batch_size=size)
    indices = list(sampler)
    assert len(set(indices)) == len(indices) == len(sampler) == min(counts) // each * size  # type: ignore[arg-type]
    for batch in batches(indices, size):
        assert [data[i].domain for i in batch] == [domain for domain in range(len(counts)) for _ in range(each)]


@given(counts=sizes, n_ins=st.integers(1, 4), n_class=st.integers(1, 5), seed=seeds)
def test_random_classes(counts: list[int], n_ins: int, n_class: int, seed: int) -> None:
    assume(n_class <= len(counts))
    data, size = source(counts, "label"), n_ins * n_class
    random.seed(seed)
    sampler = build_sampler("RandomClassSampler", data_source=data, batch_size=size, n_ins=n_ins)
    assert len(sampler) > 0  # type: ignore[arg-type]
    indices = [int(i) for i in sampler]
    assert indices
    for batch in batches(indices, size):
        assert list(Counter(data[i].label for i in batch).values()) == [n_ins] * n_class
    for label, count in enumerate(counts):
        times = Counter(i for i in indices if data[i].label == label)
        if count >= n_ins:
            assert set(times.values()) <= {1}
            assert sum(times.values()) <= count // n_ins * n_ins
        else:
            assert sum(times.values()) <= n_ins
    if n_class == 1:
        assert len(sampler) == len(indices) == sum(max(count // n_ins, 1) for count in counts) * n_ins  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("NoSampler", {}),
        ("RandomDomainSampler", {"batch_size": 5, "n_domain": 2}),
        ("SeqDomainSampler", {"batch_size": 5}),
        ("RandomClassSampler", {"batch_size": 2, "n_ins": 3}),
        ("RandomClassSampler", {"batch_size": 32, "n_ins": 1}),
    ],
)
def test_invalid_options_are_refused(name: str, options: dict[str, Any]) -> None:
    data = [SimpleNamespace(domain=i % 2, label=i % 3) for i in range(30)]
    with pytest.raises((ValueError, AssertionError)):
        build_sampler(name, data_source=data, **options)
