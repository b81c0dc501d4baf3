"""Numbers that a run keeps for people."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
import torch

from coft.method.pseudo_labels import Predictions, PseudoLabels
from coft.runtime.diagnostics import Diagnostics
from coft.runtime.run_log import RunLog

PEERS = ("peer_a", "peer_b")
NAMES = ("cat", "dog", "owl")
TRUTH = [i % 3 for i in range(60)]


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    paths = [f"{i}.png" for i in range(60)]
    return RunLog(tmp_path, tmp_path, paths, NAMES, Diagnostics(torch.tensor(TRUTH)), time.monotonic())


def drawn(seed: int) -> Predictions:
    """What a peer might think of 60 images and three classes."""
    source = torch.Generator().manual_seed(seed)
    probabilities, clean = torch.rand(2, 60, 3, generator=source).softmax(dim=2)
    return Predictions(probabilities.argmax(dim=1), probabilities, clean)


def pairs_in_order(score: list[float], right: list[bool]) -> float:
    """Share of all pairs of a right and a wrong label of which the right one scores higher; equal ones count half."""
    pairs = [(a, b) for a, x in zip(score, right, strict=True) for b, y in zip(score, right, strict=True) if x > y]
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


@pytest.mark.parametrize("own", [True, False])
def test_aurocs_are_of_the_peer_that_labels_and_of_both(log: RunLog, own: bool) -> None:
    predictions = dict(zip(PEERS, map(drawn, (0, 1)), strict=True))
    sources = dict(zip(PEERS, PEERS if own else PEERS[::-1], strict=True))
    labels = {name: PseudoLabels.of_pool(predictions[sources[name]].label) for name in PEERS}
    log.labelled(predictions, labels, sources)
    expected: dict[str, list[float]] = {}
    for source in sources.values():
        label = predictions[source].label.tolist()
        right = [a == b for a, b in zip(label, TRUTH, strict=True)]
        p = {n: [each.probability[i, c].item() for i, c in enumerate(label)] for n, each in predictions.items()}
        clean = {n: each.p_clean(torch.tensor(label)).tolist() for n, each in predictions.items()}
        rows = predictions[source].probability.tolist()
        lead = [row[c] - max(x for k, x in enumerate(row) if k != c) for row, c in zip(rows, label, strict=True)]
        scores = {"p_clean": clean[source], "confidence": p[source], "margin": lead}
        scores |= {"p_clean_both": [sum(x) for x in zip(*clean.values(), strict=True)]}
        scores |= {"confidence_both": [sum(x) for x in zip(*p.values(), strict=True)]}
        for key, score in scores.items():
            expected.setdefault(key, []).append(pairs_in_order(score, right))
    for key, values in expected.items():
        assert log.numbers[f"auroc_{key}"] == pytest.approx(sum(values) / 2, abs=1e-6), key


@pytest.mark.parametrize(("differing", "warned"), [(0, 1), (1, 1), (2, 0), (50, 0)])
def test_peers_that_say_the_same_are_worth_one_warning(
    log: RunLog, caplog: pytest.LogCaptureFixture, differing: int, warned: int
) -> None:
    first, second = torch.zeros(100, dtype=torch.long), (torch.arange(100) < differing).long()
    none = PseudoLabels.certain(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            log.seeds_filtered(dict.fromkeys(PEERS, none), [0.5, 0.7], [first, second])
    assert log.numbers["disagreement"] == pytest.approx(differing / 100)
    assert log.numbers["separation"] == pytest.approx(0.6)
    assert caplog.text.count("The peers disagree on") == warned


def test_classes_that_are_short_of_seeds_are_named_and_the_right_seeds_counted(
    log: RunLog, caplog: pytest.LogCaptureFixture
) -> None:
    seeds = PseudoLabels.certain(torch.tensor([0, 3, 1, 5]), torch.tensor([0, 0, 1, 1]))
    log.seeds_chosen(seeds, torch.eye(3).repeat(20, 1), torch.tensor([2, 3, 0]))
    assert "Fewer seeds than wanted for: dog" in caplog.text
    assert (log.numbers["kept"], log.numbers["of"]) == (4, 60)
    assert log.numbers["precision"] == pytest.approx(0.75) and log.numbers["pool_accuracy"] == 1


def test_numbers_are_of_the_next_row_and_go_on_where_a_run_was_stopped(log: RunLog, tmp_path: Path) -> None:
    log.numbers["kept"] = 3
    assert log.add(0, "zero-shot", accuracy_both=50.0) == {"kept": 3, "accuracy_both": 50.0}
    log.add(1, "phase1", accuracy_both=60.0)
    log.add(2, "phase2", accuracy_both=70.0)
    again = RunLog(tmp_path, tmp_path, [], NAMES, Diagnostics(torch.tensor(TRUTH)), time.monotonic())
    again.resume(1)
    assert [row["epoch"] for row in again.history.rows] == [0, 1]
    assert again.results()["after Phase I"]["accuracy_both"] == 60
    assert log.results()["after Phase II"]["accuracy_both"] == 70
