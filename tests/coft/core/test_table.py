"""Lazy tables: rows are computed in small parts when they are read; memory does not grow with the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coft.core import table
from coft.core.table import Selection, Table

ROOT = Path(__file__).resolve().parents[3]
SIZES = pytest.mark.parametrize("rows", [1, 7, 64, 1000])


def numbers(n: int, c: int, seed: int) -> Tensor:
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed)) * 3


@SIZES
def test_rows_equal_those_of_the_tensor(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROWS", rows)
    x, index = numbers(64, 5, 0), torch.tensor([63, 0, 7, 7, 8, 20, 1, 2, 3])
    lazy = Table.of(x)
    assert len(lazy) == 64 and torch.equal(lazy.all(), x) and torch.equal(lazy.at(index), x[index])
    torch.testing.assert_close(lazy.mean(), x.mean(dim=0))
    torch.testing.assert_close(lazy.inner(Table.of(x[:, :2])), x.t() @ x[:, :2])
    group = torch.arange(64) % 3
    sums = torch.stack([*(x[group == g].sum(dim=0) for g in range(3)), torch.zeros(5)])
    torch.testing.assert_close(lazy.sum_by(group, 4), sums)
    assert lazy.at(torch.empty(0, dtype=torch.long)).shape == (0, 5)


@SIZES
def test_a_mapped_table_equals_the_mapped_tensor(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROWS", rows)
    (x, y), label = (numbers(64, 5, seed) for seed in (0, 1)), torch.arange(64) % 5
    index = torch.tensor([5, 63, 5, 0])
    for result, expected in (
        (Table.of(x).map(lambda a: a.softmax(dim=1)), x.softmax(dim=1)),
        (Table.of(x).map(lambda a, b: a - b, Table.of(y)), x - y),
        (Table.of(x).map(lambda a, b: a - b, y).map(lambda d: d[:, :2] * 2), (x - y)[:, :2] * 2),
        (Table.of(x).map(lambda a, at: a.gather(1, at.unsqueeze(1)), label), x.gather(1, label.unsqueeze(1))),
        (Table.of(x).map(lambda a: a.argmax(dim=1)), x.argmax(dim=1)),
    ):
        assert (
            len(result) == 64 and torch.equal(result.all(), expected) and torch.equal(result.at(index), expected[index])
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.long])
def test_rows_of_16_bits_are_returned_in_fp32(dtype: torch.dtype) -> None:
    x = numbers(9, 3, 0).to(dtype)
    expected = x.float() if dtype.itemsize == 2 else x
    for rows in (Table.of(x).all(), Table.of(x).at(torch.arange(9)), Table.of(x).map(lambda a: a + 0).all()):
        assert rows.dtype == expected.dtype and torch.equal(rows, expected)


def test_rows_are_computed_when_read_and_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROWS", 4)
    sizes: list[int] = []

    def rows(selection: Selection) -> Tensor:
        part = torch.arange(10)[selection]
        sizes.append(len(part))
        return part.unsqueeze(1).double()

    mapped = Table(10, rows).map(lambda x: x * 2).map(lambda x: x + 1)
    assert len(mapped) == 10 and sizes == []
    assert mapped.at(torch.tensor([3, 9])).tolist() == [[7.0], [19.0]] and sizes == [2]
    for _ in range(2):
        sizes.clear()
        assert mapped.mean().tolist() == [10.0] and sizes == [4, 4, 2]


BOUNDED = """
import resource, sys, torch
from coft.core import table
from coft.core.table import Table
from coft.labelling.calibration import Belief, Calibration
from coft.labelling.first_labels import likeliest
from coft.labelling.neighbours import NeighbourGraph
from coft.labelling.predictor import FinalClassifier
from coft.labelling.seeds import select_seeds
from coft.method.filters import min_p_clean
from coft.method.guard import measure_knowledge
from coft.labelling.pseudo_labels import Predictions
from coft.method.predicting import clean_labels, label_scores, probabilities
torch.set_num_threads(1)
table.ROWS = int(sys.argv[1])
N, C, DIM = 40_000, 128, 16  # scores of one kind, of all images, take 20 MiB in fp32
source = torch.Generator().manual_seed(0)
features = [Table.of(torch.randn(N, DIM, generator=source)) for _ in range(2)]
vectors = torch.randn(2, 2, C, DIM, generator=source)
models = [FinalClassifier(None, *pair, 1.0) for pair in vectors]
used = int(next(x for x in open("/proc/self/status") if x.startswith("VmData")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20),) * 2)
logits = models[0].logits(features[0])
select_seeds(logits, 20, C)
measure_knowledge(logits)
graph = NeighbourGraph(features[0], 2, most=1000)
belief = Belief(logits, logits)
scores = [label_scores(rows, model, 0.5, graph) for rows, model in zip(features, models)]
labels = [likeliest(each) for each in scores]
pairs = []
for rows, model, each, label, judged in zip(features, models, scores, labels, reversed(labels)):
    calibration = Calibration.of_pool(belief, judged)
    clean = clean_labels(rows, model, 0.5, "softmax", calibration)
    pairs.append(Predictions(label, probabilities(each, calibration), clean))
min_p_clean(*pairs).log_frequency(C)
pairs[0].margin, pairs[1].confidence
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds this kind of memory")
@pytest.mark.parametrize(("rows", "succeeds"), [(table.ROWS, True), (1 << 20, False)])
def test_memory_does_not_grow_with_the_scores(rows: int, succeeds: bool) -> None:
    """Labels and seeds of two peers need less than 64 MiB, their scores 80 MiB; with all rows at once it must fail."""
    command = [sys.executable, "-c", BOUNDED, str(rows)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.stdout.strip() == "done") == succeeds, result.stderr
