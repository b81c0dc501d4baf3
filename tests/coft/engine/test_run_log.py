"""Files and log lines of a run, from what a method reports to its observer."""

from __future__ import annotations

import csv
import re
import time
from pathlib import Path

import pytest
import torch

from coft.core.table import Table
from coft.engine.diagnostics import Diagnostics
from coft.engine.run_log import RunLog, SeedReport
from coft.labelling.pseudo_labels import Predictions, PseudoLabels

PEERS = ("peer_a", "peer_b")
NAMES = ["cat", "dog"]


def make_log(folder: Path, truth: list[int]) -> RunLog:
    paths = [f"{i}.png" for i in range(len(truth))]
    return RunLog(folder, paths, NAMES, Diagnostics(truth), time.monotonic())


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def predictions(label: list[int], confidence: list[float], clean: list[float]) -> Predictions:
    def scores_of(numbers: list[float]) -> Table:
        pairs = zip(label, numbers, strict=True)
        return Table.of(torch.tensor([[x if c == y else 1 - x for c in range(2)] for y, x in pairs]))

    return Predictions(torch.tensor(label), scores_of(confidence), scores_of(clean))


def test_seeds_are_counted_and_classes_with_too_few_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = make_log(tmp_path, [0, 0, 1, 1, -1])
    label = torch.tensor([0, 1, 1, 1, 0])
    seeds = PseudoLabels.unweighted(torch.tensor([0, 1, 4]), torch.tensor([0, 1, 0]))
    log.seeds_chosen(seeds, label, torch.tensor([2, 2]))
    assert "Fewer seeds than wanted for: dog" in caplog.text
    log.seeds_chosen(PseudoLabels.unweighted(torch.tensor([0]), torch.tensor([0])), label, torch.tensor([1, 0]))
    assert "No seeds for: dog" in caplog.text  # no image is predicted as dog, so its quota is 0
    log.seeds_chosen(seeds, label, torch.tensor([2, 2]))
    reported = log.add(0, "zero-shot")
    assert (reported["kept"], reported["of"], reported["precision"], reported["pool_accuracy"]) == (3, 5, 0.5, 0.75)
    caplog.set_level("INFO")
    log.epochs = 3
    assert "kept" not in log.add(1, "phase1")
    assert re.search(r"\[phase1\] epoch 1 of 3: seconds \d", caplog.text)
    assert [row["kept"] for row in read_rows(tmp_path / "metrics.csv")] in (["3", ""], ["3.0", ""])


def test_filtered_seeds_are_counted_over_both_peers(tmp_path: Path) -> None:
    log = make_log(tmp_path, [0, 1, 0, 1])
    one = PseudoLabels.unweighted(torch.tensor([0, 1]), torch.tensor([0, 0])).with_weights(torch.tensor([0.9, 0.4]))
    two = PseudoLabels.unweighted(torch.tensor([2, 3]), torch.tensor([1, 1])).with_weights(torch.tensor([0.6, 0.7]))
    seeds = dict(zip(PEERS, (one, two), strict=True))
    log.seeds_filtered(seeds)
    reported = log.add(1, "phase1")
    assert reported["precision"] == pytest.approx(2 / 3)
    assert (reported["kept"], reported["of"], reported["coverage"]) == (3, 4, 0.75)


def test_coverage_counts_an_image_once_if_both_models_have_its_label(tmp_path: Path) -> None:
    log = make_log(tmp_path, [0, 1, 0, 1])
    labels = PseudoLabels.unweighted(torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1]))
    log.seeds_filtered(dict.fromkeys(PEERS, labels))
    assert log.add(1, "phase1")["coverage"] == 0.75


def test_a_run_that_resumes_in_another_folder_takes_the_last_labels_along(tmp_path: Path) -> None:
    log = make_log(tmp_path / "first", [0, 1, 1, 0])
    rows = predictions([0, 1, 0, 1], [0.9, 0.7, 0.6, 0.8], [0.9, 0.2, 0.6, 0.9])
    log.labelled(
        dict.fromkeys(PEERS, rows),
        dict.fromkeys(PEERS, PseudoLabels.of_pool(rows.label)),
        dict(zip(PEERS, PEERS, strict=True)),
    )
    log.add(1, "phase2")
    make_log(tmp_path / "second", [0, 1, 1, 0]).resume(1, tmp_path / "first")
    for name in ("pseudo_labels.csv", "report/peers.safetensors"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    make_log(tmp_path / "third", [0, 1, 1, 0]).resume(1, tmp_path / "nowhere")
    assert not (tmp_path / "third").exists()


def test_pseudo_labels_are_those_of_the_more_confident_peer_and_name_the_learner(tmp_path: Path) -> None:
    log = make_log(tmp_path, [0, 1, 1, 0])
    first = predictions([0, 1, 0, 1], [0.9, 0.7, 0.6, 0.8], [0.9, 0.2, 0.6, 0.9])
    other = predictions([0, 1, 1, 0], [0.8, 0.9, 0.7, 0.6], [0.7, 0.8, 0.6, 0.1])
    labels = {  # each peer learns from the other
        "peer_a": PseudoLabels.of_pool(other.label, torch.tensor([0.7, 0.8, 0.6, 0.1])),
        "peer_b": PseudoLabels.of_pool(first.label, torch.tensor([0.9, 0.2, 0.6, 0.9])),
    }
    log.labelled({"peer_a": first, "peer_b": other}, labels, dict(zip(PEERS, PEERS[::-1], strict=True)))
    rows = read_rows(tmp_path / "pseudo_labels.csv")
    assert list(rows[0]) == ["path", "class", "confidence", "p_clean_a", "p_clean_b", "kept_for"]
    assert [row["class"] for row in rows] == ["cat", "dog", "dog", "dog"]
    assert [float(row["confidence"]) for row in rows] == pytest.approx([0.9, 0.9, 0.7, 0.8])
    assert [row["kept_for"] for row in rows] == ["peer_a+peer_b", "peer_a", "peer_a", "peer_b"]
    assert [float(row["p_clean_a"]) for row in rows] == pytest.approx([0.9, 0.2, 0.4, 0.9])
    assert [float(row["p_clean_b"]) for row in rows] == pytest.approx([0.7, 0.8, 0.6, 0.9])
    reported = log.add(3, "phase2")
    assert (reported["kept"], reported["coverage"], reported["of"], reported["disagreement"]) == (3, 0.75, 4, 0.5)
    assert reported["precision"] == pytest.approx((3 / 3 + 1 / 3) / 2)
    assert reported["pool_accuracy"] == pytest.approx((4 / 4 + 2 / 4) / 2)
    assert reported["recall"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert reported["mean_p_clean"] == pytest.approx(((0.7 + 0.8 + 0.6 + 0.1) + (0.9 + 0.2 + 0.6 + 0.9)) / 8)


def test_a_resumed_run_continues_rows_and_seconds(tmp_path: Path) -> None:
    first = make_log(tmp_path, [0])
    first.started -= 100
    for epoch in (1, 2):
        first.add(epoch, "phase1", accuracy_both=50.0 + epoch)
    second = make_log(tmp_path, [0])
    second.resume(1, tmp_path)
    second.add(2, "phase2", accuracy_both=60.0)
    rows = read_rows(tmp_path / "metrics.csv")
    assert [(row["epoch"], row["stage"], float(row["accuracy_both"])) for row in rows] == [
        ("1", "phase1", 51.0),
        ("2", "phase2", 60.0),
    ]
    assert float(rows[1]["seconds"]) >= 100
    assert {title: row["accuracy_both"] for title, row in second.results().items()} == {
        "after Phase I": 51.0,
        "after Phase II": 60.0,
    }
    second.finish()
    assert (tmp_path / "curves.png").is_file()


def test_seeds_of_a_rival_are_counted_for_the_summary() -> None:
    results: dict[str, float] = {}
    report = SeedReport(Diagnostics([0, 1, -1]), results)
    seeds = PseudoLabels.unweighted(torch.tensor([0, 1, 2]), torch.tensor([0, 0, 0]))
    report.seeds_chosen(seeds, torch.zeros(3, dtype=torch.long), torch.tensor([1, 1]))
    assert results == {"pseudo_labels": 3, "pseudo_label_precision": 0.5}
    report.labelled({}, {"model_1": seeds}, {})
    assert results == {"pseudo_labels": 3, "pseudo_label_precision": 0.5}


def random_predictions(seed: int) -> Predictions:
    """Random predictions for 60 images and three classes."""
    source = torch.Generator().manual_seed(seed)
    probability, clean = torch.rand(2, 60, 3, generator=source).softmax(dim=2)
    return Predictions(probability.argmax(dim=1), Table.of(probability), Table.of(clean))


def values_at(table: Table, label: list[int]) -> list[float]:
    return [row[c] for row, c in zip(table.all().tolist(), label, strict=True)]


def naive_auroc(score: list[float], correct: list[bool]) -> float:
    """Share of pairs of a correct and a wrong label in which the correct one scores higher; ties count half."""
    pairs = [(a, b) for a, x in zip(score, correct, strict=True) for b, y in zip(score, correct, strict=True) if x > y]
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


@pytest.mark.parametrize("own_labels", [True, False])
def test_aurocs_equal_a_naive_loop(tmp_path: Path, own_labels: bool) -> None:
    truth, peers = [i % 3 for i in range(60)], ("peer_a", "peer_b")
    paths = [f"{i}.png" for i in range(60)]
    log = RunLog(tmp_path, paths, ["cat", "dog", "owl"], Diagnostics(torch.tensor(truth)), 0.0)
    predictions = dict(zip(peers, map(random_predictions, (0, 1)), strict=True))
    sources = dict(zip(peers, peers if own_labels else peers[::-1], strict=True))
    labels = {name: PseudoLabels.of_pool(predictions[sources[name]].label) for name in peers}
    log.labelled(predictions, labels, sources)
    expected: dict[str, list[float]] = {}
    for source in sources.values():
        label = predictions[source].label.tolist()
        correct = [a == b for a, b in zip(label, truth, strict=True)]
        p = {name: values_at(prediction.probability, label) for name, prediction in predictions.items()}
        clean = {name: values_at(prediction.clean, label) for name, prediction in predictions.items()}
        rows = predictions[source].probability.all().tolist()
        margin = [row[c] - max(x for k, x in enumerate(row) if k != c) for row, c in zip(rows, label, strict=True)]
        scores = {"p_clean": clean[source], "confidence": p[source], "margin": margin}
        for key, score in scores.items():
            expected.setdefault(key, []).append(naive_auroc(score, correct))
    for key, values in expected.items():
        assert log.numbers[f"auroc_{key}"] == pytest.approx(sum(values) / 2, abs=1e-6), key
