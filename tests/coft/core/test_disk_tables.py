"""Tables too large for memory: mapped ones have the same bits, leave no file, and take no memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from coft.core import disk_tables
from coft.core.disk_tables import new_table, tables_in
from coft.core.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


def test_a_large_table_is_mapped_and_its_file_has_no_name(tmp_path: Path) -> None:
    bytes_of = 10 * 3 * 8
    for bound in (bytes_of, bytes_of - 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(disk_tables, "IN_MEMORY", bound)
            table = tables_in(tmp_path / "out")(10, 3, torch.float64)
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

    monkeypatch.setattr(disk_tables, "IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"no room for a table of .* \(No space left on device\); make room") as caught:
        new_table(10, 3, torch.float32, tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


BOUNDED = """
import resource, sys, torch
from coft.method.filters import FILTERS, with_minimum
from coft.method.labeller import predict
from coft.method.negative_prompt import separation
from coft.labelling.neighbours import NeighbourGraph
from coft.labelling.pseudo_labels import select_seeds
from coft.core.tables import Rows
from coft.core import disk_tables
torch.set_num_threads(1)
allocate, disk_tables.IN_MEMORY = disk_tables.tables_in(sys.argv[1]), int(sys.argv[2])
N, C = 40_000, 256  # a table takes 39 MiB
source = torch.Generator().manual_seed(0)
def filled():
    rows = Rows(N, allocate)
    for _ in range(N // 1000):
        rows.add(torch.randn(1000, C, generator=source))
    return rows.table()
filled(); used = int(next(x for x in open("/proc/self/status") if x.startswith("VmData")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (96 << 20),) * 2)  # memory, without what is mapped from files
views = [(filled(), filled()) for _ in range(2)]
select_seeds(views[0][0], 20)
separation(views[0][1], views[0][0].argmax(dim=1))
graph = NeighbourGraph(torch.randn(N, 8, generator=source), 2, anchors=1000)
own, other = (predict(*view, 0.5, "coupled", graph, allocate) for view in views)
for rule in FILTERS.values():
    with_minimum(rule, 4)(own, other).log_frequency(C)
own.margin, other.confidence
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds this kind of memory")
@pytest.mark.parametrize(("in_memory", "enough"), [(1 << 20, True), (1 << 40, False)])
def test_memory_does_not_grow_with_the_tables(in_memory: int, enough: bool, tmp_path: Path) -> None:
    """Labels and seeds of two peers in 96 MiB, where four tables have 160; in memory it must fail."""
    command = [sys.executable, "-c", BOUNDED, str(tmp_path), str(in_memory)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.stdout.strip() == "done") == enough, result.stderr
    assert not list(tmp_path.iterdir())
