"""Registries, meters, seeds, files, counts of parameters."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dassl.utils import (
    AverageMeter,
    MetricMeter,
    Registry,
    check_availability,
    check_isfile,
    count_num_param,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    set_random_seed,
    write_json,
)
from toys import upstream_fault


def test_registry() -> None:
    registry = Registry("THING")

    @registry.register()
    class One: ...

    class Two: ...

    registry.register(Two)
    assert registry.registered_names() == ["One", "Two"]
    assert registry.get("One") is One
    with pytest.raises(KeyError):
        registry.register(Two)
    registry.register(int, force=True)
    registry.register(int, force=True)
    with pytest.raises(KeyError):
        registry.get("Three")


def test_most_similar_name_is_suggested() -> None:
    check_availability("CoOp", ["CoOp", "UPL"])
    with pytest.raises(ValueError, match=r"CoOp.*UPL.*do you mean \[CoOp\]\?"):
        check_availability("CoOpp", ["CoOp", "UPL"])


@given(values=st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 5)), min_size=1, max_size=9))
def test_average_meter(values: list[tuple[float, int]]) -> None:
    meter = AverageMeter()
    for value, n in values:
        meter.update(torch.tensor(value, dtype=torch.float64), n)
    total, count = sum(v * n for v, n in values), sum(n for _, n in values)
    assert (meter.val, meter.count) == (values[-1][0], count)
    assert meter.sum == pytest.approx(total, abs=1e-6)
    assert meter.avg == pytest.approx(total / count, abs=1e-6)


def test_metric_meter() -> None:
    metrics = MetricMeter()
    metrics.update(None)
    metrics.update({"loss": 1.0, "acc": torch.tensor(50.0)})
    metrics.update({"loss": 2.0})
    assert str(metrics) == "loss 2.0000 (1.5000) acc 50.0000 (50.0000)"
    assert str(MetricMeter()) == ""
    with pytest.raises(TypeError):
        metrics.update([1.0])  # type: ignore[arg-type]
    tabbed = MetricMeter(delimiter="\t")
    tabbed.update({"a": 1, "b": 2})
    assert str(tabbed) == "a 1.0000 (1.0000)\tb 2.0000 (2.0000)"


@pytest.mark.parametrize("seed", [0, 7])
def test_seed_sets_all_generators(seed: int) -> None:
    draws = []
    for _ in range(2):
        set_random_seed(seed)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    set_random_seed(seed + 1)
    other = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], other, strict=True))


@upstream_fault("writes in place")
def test_failed_json_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_json([1, "é"], str(path))
    with pytest.raises(TypeError):
        write_json([1, object()], str(path))
    assert read_json(str(path)) == [1, "é"]
    assert list(path.parent.iterdir()) == [path]


def test_folders_and_files(tmp_path: Path) -> None:
    for _ in range(2):
        mkdir_if_missing(str(tmp_path / "x" / "y"))
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).touch()
    assert sorted(listdir_nohidden(str(tmp_path))) == ["a", "b", "x"]
    assert listdir_nohidden(str(tmp_path), sort=True) == ["a", "b", "x"]
    assert check_isfile(str(tmp_path / "a"))
    with pytest.warns(UserWarning, match="nowhere"):
        assert not check_isfile(str(tmp_path / "nowhere"))


def test_count_of_parameters() -> None:
    model = nn.Linear(3, 2)
    assert count_num_param(model) == 8
    assert count_num_param(params=model.parameters()) == 8
    with pytest.raises(ValueError):
        count_num_param()
