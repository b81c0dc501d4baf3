"""Tables of many images: mapped ones have the same bits, leave no file, and take no memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.method import tables
from coft.method.labelling import mean_log_probabilities, opinion
from coft.method.seeds import cached, correct_prior_, select_seeds
from coft.method.tables import Rows, each_row, map_rows, new_table
from coft.runtime.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def logits(n: int, c: int, seed: int) -> torch.Tensor:
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed)) * 3


def test_a_large_table_is_mapped_and_its_file_has_no_name(tmp_path: Path) -> None:
    bytes_of = 10 * 3 * 8
    for bound in (bytes_of, bytes_of - 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "IN_MEMORY", bound)
            table = new_table(10, 3, torch.float64, tmp_path / "out")
        assert table.shape == (10, 3) and table.dtype == torch.float64
        table.copy_(torch.arange(30.0).view(10, 3))
        assert float(table.sum()) == 435
        maps = Path("/proc/self/maps")
        if maps.exists():
            assert (str(tmp_path / "out") in maps.read_text()) == (bound < bytes_of)
    assert list((tmp_path / "out").iterdir()) == []


def test_no_room_for_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tables, "IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"no room for a table of .* \(No space left on device\); make room") as caught:
        new_table(10, 3, torch.float32, tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_rows_must_all_come(tmp_path: Path) -> None:
    rows = Rows(5, tmp_path)
    with pytest.raises(ValueError, match="0 rows came, 5"):
        rows.table()
    rows.add(torch.ones(3, 2))
    with pytest.raises(ValueError, match="3 rows came, 5"):
        rows.table()
    rows.add(torch.zeros(2, 2))
    assert rows.table().sum() == 6


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_a_few_rows_at_a_time_or_all_at_once(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", rows)
    x, y = logits(64, 5, 0), logits(64, 5, 1)
    assert torch.equal(map_rows(lambda a, b: a - b, x, y, folder=tmp_path), x - y)
    assert torch.equal(each_row(lambda a: a.argmax(dim=1), x), x.argmax(dim=1))
    z, plain = logits(64, 5, 2), {"joint": (x + y) / 2, "clean": y, "positive": x}
    for classify, scores in plain.items():
        mean = torch.stack([scores.double().softmax(1), z.double().softmax(1)]).mean(0).log()
        assert torch.equal(mean_log_probabilities([(x, y), (z, z)], classify, str(tmp_path)), mean)
    corrected = [correct_prior_(table.clone(), 0.5) for table in (x, y)]
    chosen = {"joint": sum(corrected), "clean": corrected[1], "positive": corrected[0]}
    for classify, scores in chosen.items():
        told = opinion(x.clone(), y.clone(), 0.5, "open", classify)
        torch.testing.assert_close(told.probabilities, corrected[0].softmax(1))
        assert torch.equal(told.labels, scores.argmax(1))


@pytest.mark.parametrize("seed", range(5))
def test_seeds_are_the_same_for_any_number_of_rows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = logits(50, 4, seed)
    expected, short = select_seeds(x, torch.tensor([3, 0, 30, 5]))
    monkeypatch.setattr(tables, "ROWS", 3)
    found, found_short = select_seeds(x, torch.tensor([3, 0, 30, 5]))
    assert torch.equal(found.ranks, expected.ranks) and torch.equal(found.labels, expected.labels)
    assert found_short == short == [2]


def test_large_features_in_the_cache_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    plain = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: seen.append(k["mmap"]) or plain(*a, **k))
    x = logits(50, 4, 0)
    for bound in (tables.IN_MEMORY, 10):
        monkeypatch.setattr(tables, "IN_MEMORY", bound)
        cached(lambda: x, tmp_path, "key")
        assert torch.equal(cached(lambda: x, tmp_path, "key"), x)
    assert seen == [False, True, True]


BOUNDED = """
import resource, sys, torch
from coft.method import tables
from coft.method.cleanliness import separation
from coft.method.labelling import mean_log_probabilities, opinion
from coft.method.pseudo_labels import FILTERS, keep_best
from coft.method.seeds import select_seeds
torch.set_num_threads(1)
folder, tables.IN_MEMORY = sys.argv[1], int(sys.argv[2])
N, C = 40_000, 256  # a table takes 39 MiB
source = torch.Generator().manual_seed(0)
def filled():
    rows = tables.Rows(N, folder)
    for _ in range(N // 1000):
        rows.add(torch.randn(1000, C, generator=source))
    return rows.table()
filled(); used = int(next(x for x in open("/proc/self/status") if x.startswith("VmData")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20),) * 2)  # memory, without what is mapped from files
views = [(filled(), filled()) for _ in range(2)]
select_seeds(mean_log_probabilities(views, "joint", folder), 20)
separation(views[0][1], views[0][0].argmax(dim=1))
own, other = (opinion(*view, 0.5, "open", "joint") for view in views)
for rule in FILTERS.values():
    lesson = keep_best(rule(own, other), own.clean_at(other.labels), 4, C)
own.margin, other.confidence
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds this kind of memory")
@pytest.mark.parametrize(("in_memory", "enough"), [(1 << 20, True), (1 << 40, False)])
def test_memory_does_not_grow_with_the_tables(in_memory: int, enough: bool, tmp_path: Path) -> None:
    """Labels, seeds and lessons of two peers in 64 MiB, where six tables have 240 or 320; in memory it must fail."""
    command = [sys.executable, "-c", BOUNDED, str(tmp_path), str(in_memory)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.stdout.strip() == "done") == enough, result.stderr
    assert not list(tmp_path.iterdir())
