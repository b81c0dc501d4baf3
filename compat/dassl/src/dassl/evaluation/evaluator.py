"""Evaluation of classification: results are returned in full precision, and printed rounded."""

from __future__ import annotations

import importlib
import random
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

from ..utils.checkpoints import write_torch
from .build import EVALUATOR_REGISTRY


class EvaluatorBase:
    """Interface of evaluators.

    Args:
        cfg: Config of the run.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg

    def reset(self) -> None:
        """Discard all processed batches."""
        raise NotImplementedError

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Process the output and the labels of a batch."""
        raise NotImplementedError

    def evaluate(self) -> OrderedDict[str, float]:
        """Return results by name. The first is the one by which models are compared."""
        raise NotImplementedError


def _sklearn_metrics() -> Any:
    """Import on use, as it is slow. What it imports may draw random numbers, and a resumed run imports it later."""
    state = random.getstate()
    metrics = importlib.import_module("sklearn.metrics")
    random.setstate(state)
    return metrics


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1.

    Args:
        cfg: Config; TEST.PER_CLASS_RESULT, TEST.COMPUTE_CMAT and OUTPUT_DIR are read.
        lab2cname: Class names by label; needed for results per class.
        **kwargs: Ignored; other evaluators may take more arguments.

    Raises:
        ValueError: If results per class are requested without class names.
    """

    def __init__(self, cfg: CfgNode, lab2cname: Mapping[int, str] | None = None, **kwargs: Any) -> None:
        super().__init__(cfg)
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs lab2cname, the class names by label")
        self._lab2cname = lab2cname
        self.reset()

    def reset(self) -> None:
        """Discard all processed batches."""
        self._correct = 0
        self._total = 0
        self._y_true: list[int] = []
        self._y_pred: list[int] = []
        self._per_class_res: defaultdict[int, list[int]] | None = None
        if self.cfg.TEST.PER_CLASS_RESULT:
            self._per_class_res = defaultdict(list)

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Process a batch.

        Args:
            mo: Logits. Shape (B, C).
            gt: Labels. Shape (B,).
        """
        pred = mo.argmax(dim=1)
        matches = pred.eq(gt).int()
        self._correct += int(matches.sum())
        self._total += len(gt)
        self._y_true.extend(gt.tolist())
        self._y_pred.extend(pred.tolist())
        if self._per_class_res is not None:
            for label, match in zip(gt.tolist(), matches.tolist(), strict=True):
                self._per_class_res[label].append(match)

    def evaluate(self) -> OrderedDict[str, float]:
        """Print and return the results.

        Returns:
            accuracy, error_rate, macro_f1 and, if requested, perclass_accuracy: percent, not rounded.

        Raises:
            ValueError: If no batch was processed.
        """
        if not self._total:
            raise ValueError("nothing to evaluate: no batch was processed")
        accuracy = 100.0 * self._correct / self._total
        results = OrderedDict(accuracy=accuracy, error_rate=100.0 - accuracy, macro_f1=self._macro_f1())
        print(
            "=> result\n"
            f"* total: {self._total:,}\n"
            f"* correct: {self._correct:,}\n"
            f"* accuracy: {accuracy:.1f}%\n"
            f"* error: {results['error_rate']:.1f}%\n"
            f"* macro_f1: {results['macro_f1']:.1f}%"
        )
        if self._per_class_res is not None:
            results["perclass_accuracy"] = self._per_class(self._per_class_res)
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusion()
        return results

    def _macro_f1(self) -> float:
        labels = sorted(set(self._y_true))
        return 100.0 * float(_sklearn_metrics().f1_score(self._y_true, self._y_pred, average="macro", labels=labels))

    def _per_class(self, per_class: Mapping[int, list[int]]) -> float:
        """Print the accuracy of each class and return their mean."""
        names = self._lab2cname or {}
        accuracies = []
        print("=> per-class result")
        for label in sorted(per_class):
            matches = per_class[label]
            accuracies.append(100.0 * sum(matches) / len(matches))
            print(
                f"* class: {label} ({names.get(label, '')})\ttotal: {len(matches):,}\t"
                f"correct: {sum(matches):,}\tacc: {accuracies[-1]:.1f}%"
            )
        mean = sum(accuracies) / len(accuracies)
        print(f"* average: {mean:.1f}%")
        return mean

    def _save_confusion(self) -> None:
        """Save the confusion matrix, true labels as rows and predictions as columns, with rows that sum to 1."""
        matrix = _sklearn_metrics().confusion_matrix(self._y_true, self._y_pred, normalize="true")
        path = Path(self.cfg.OUTPUT_DIR) / "cmat.pt"
        write_torch(torch.from_numpy(matrix), path)
        print(f"Confusion matrix is saved to {path}")
