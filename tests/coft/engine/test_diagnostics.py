from __future__ import annotations

import math

import pytest
import torch

from coft.engine.diagnostics import Diagnostics, calibration_error

TRUTH = [0, 1, 2, 0, -1]
LABELS = torch.tensor([0, 1, 1, 2, 0])


def test_accuracy_ignores_images_without_a_label() -> None:
    d = Diagnostics(TRUTH)
    assert d.accuracy(torch.arange(5), LABELS) == 0.5
    assert d.accuracy(torch.tensor([3, 0, 4]), torch.tensor([0, 0, 0])) == 1.0
    assert math.isnan(d.accuracy(torch.tensor([4]), torch.tensor([0])))


@pytest.mark.parametrize("seed", range(5))
def test_the_calibration_error_equals_a_naive_loop(seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    confidence = torch.rand(40, generator=source).sqrt()
    confidence[0], confidence[1] = 1.0, 0.6  # the end of the last bin, and a boundary
    correct = torch.rand(40, generator=source) < confidence
    bins = [[] for _ in range(15)]
    for p, is_correct in zip(confidence.tolist(), correct.tolist(), strict=True):
        bins[min(14, int(p * 15))].append((p, is_correct))
    gaps = [len(b) * abs(sum(p for p, _ in b) / len(b) - sum(r for _, r in b) / len(b)) for b in bins if b]
    assert calibration_error(confidence, correct) == pytest.approx(sum(gaps) / 40)
    assert math.isnan(calibration_error(torch.empty(0), torch.empty(0)))
