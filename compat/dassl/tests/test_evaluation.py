"""Evaluation: returned, printed and written results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dassl.config import get_cfg_default
from dassl.evaluation import EVALUATOR_REGISTRY, Classification, EvaluatorBase, build_evaluator
from dassl.metrics import compute_accuracy
from toys import upstream_fault

NAMES = {0: "cat", 1: "dog", 2: "owl"}


def evaluator_cfg(**options: Any) -> Any:
    cfg = get_cfg_default()
    cfg.TEST.merge_from_list([x for pair in options.items() for x in pair])
    return cfg


def evaluate(true: list[int], predicted: list[int], cfg: Any, names: Any = NAMES, batch: int = 4) -> Any:
    evaluator = build_evaluator(cfg, lab2cname=names)
    evaluator.reset()
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 3).float()
    for part, labels in zip(logits.split(batch), torch.tensor(true).split(batch), strict=True):
        evaluator.process(part, labels)
    return evaluator.evaluate()


def test_printed_lines(capsys: pytest.CaptureFixture[str]) -> None:
    true, predicted = [0] * 1000 + [1] * 200 + [2] * 34, [0] * 1000 + [0] * 100 + [1] * 134
    results = evaluate(true, predicted, evaluator_cfg(PER_CLASS_RESULT=True))
    assert capsys.readouterr().out == (
        "Loading evaluator: Classification\n"
        "=> result\n"
        "* total: 1,234\n"
        "* correct: 1,100\n"
        "* accuracy: 89.1%\n"
        "* error: 10.9%\n"
        "* macro_f1: 51.7%\n"
        "=> per-class result\n"
        "* class: 0 (cat)\ttotal: 1,000\tcorrect: 1,000\tacc: 100.0%\n"
        "* class: 1 (dog)\ttotal: 200\tcorrect: 100\tacc: 50.0%\n"
        "* class: 2 (owl)\ttotal: 34\tcorrect: 0\tacc: 0.0%\n"
        "* average: 50.0%\n"
    )
    assert list(results) == ["accuracy", "error_rate", "macro_f1", "perclass_accuracy"]


@given(pairs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_results_against_a_loop(pairs: list[tuple[int, int]]) -> None:
    true, predicted = (list(side) for side in zip(*pairs, strict=True))
    results = evaluate(true, predicted, evaluator_cfg())
    accuracy = 100 * sum(t == p for t, p in pairs) / len(pairs)
    assert results["accuracy"] == pytest.approx(accuracy, abs=1e-9)
    assert results["error_rate"] == pytest.approx(100 - accuracy, abs=1e-9)
    scores = []
    for label in sorted(set(true)):
        hits = sum(t == p == label for t, p in pairs)
        scores.append(2 * hits / (true.count(label) + predicted.count(label)))
    assert results["macro_f1"] == pytest.approx(100 * sum(scores) / len(scores), abs=1e-9)
    assert all(type(value) is float for value in results.values())


@upstream_fault("writes a NumPy array, which torch.load refuses by default")
def test_confusion_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = evaluator_cfg(COMPUTE_CMAT=True)
    cfg.OUTPUT_DIR = str(tmp_path)
    evaluate([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 2], cfg)
    path = tmp_path / "cmat.pt"
    assert capsys.readouterr().out.endswith(f"Confusion matrix is saved to {path}\n")
    matrix = np.asarray(torch.load(path, weights_only=True))
    assert matrix == pytest.approx(np.array([[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 0]]))


def test_reset_discards_earlier_batches() -> None:
    evaluator = Classification(evaluator_cfg(PER_CLASS_RESULT=True), lab2cname=NAMES)
    evaluator.process(torch.eye(3), torch.tensor([1, 2, 0]))
    evaluator.reset()
    evaluator.process(torch.eye(3), torch.tensor([0, 1, 2]))
    results = evaluator.evaluate()
    assert (results["accuracy"], results["perclass_accuracy"]) == (100.0, 100.0)


def test_attributes_for_subclasses() -> None:
    evaluator = Classification(evaluator_cfg(PER_CLASS_RESULT=True), lab2cname=NAMES)
    evaluator.process(torch.eye(3), torch.tensor([0, 2, 2]))
    assert (evaluator._correct, evaluator._total) == (2, 3)
    assert (evaluator._y_true, evaluator._y_pred) == ([0, 2, 2], [0, 1, 2])
    assert evaluator._per_class_res is not None
    assert {label: list(hits) for label, hits in evaluator._per_class_res.items()} == {0: [1], 2: [0, 1]}


def test_evaluators_by_name() -> None:
    @EVALUATOR_REGISTRY.register(force=True)
    class Custom(EvaluatorBase):
        def __init__(self, cfg: Any, lab2cname: Any = None) -> None:
            super().__init__(cfg)
            self.names = lab2cname

    evaluator = build_evaluator(evaluator_cfg(EVALUATOR="Custom"), lab2cname=NAMES)
    assert isinstance(evaluator, Custom)
    assert evaluator.names is NAMES
    with pytest.raises(ValueError):
        build_evaluator(evaluator_cfg(EVALUATOR="Clasification"))


# ---- metrics


def test_accuracy_is_a_tensor_in_percent() -> None:
    (accuracy,) = compute_accuracy(torch.eye(4), torch.tensor([0, 1, 3, 2]))
    assert accuracy.shape == (1,)
    assert accuracy.item() == 50.0
    assert compute_accuracy((torch.eye(4), torch.zeros(4)), torch.arange(4))[0].item() == 100.0
    assert compute_accuracy([torch.eye(4)], torch.arange(4))[0].item() == 100.0


@upstream_fault("view of a tensor that is not contiguous")
@given(seed=st.integers(0, 999), number=st.integers(1, 12), classes=st.integers(5, 9))
def test_top_k(seed: int, number: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.rand(number, classes, generator=generator)
    labels = torch.randint(classes, (number,), generator=generator)
    accuracies = compute_accuracy(logits, labels, topk=(1, 3, 5))
    for k, accuracy in zip((1, 3, 5), accuracies, strict=True):
        better = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
        assert accuracy.item() == pytest.approx(100 * (better < k).float().mean().item(), abs=1e-4)
