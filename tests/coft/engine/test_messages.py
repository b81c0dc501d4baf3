"""Messages at the end of a run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from coft.engine.messages import report_outcome
from coft.labelling.calibration import MAX_CALIBRATION_GAP, estimated_range


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        ({"confidence": 0.81, "calibrated": True}, "Estimated accuracy: 81 %, between 72 and 90"),
        ({"confidence": 0.97, "calibrated": True}, "Estimated accuracy: 97 %, between 88 and 100"),
        ({"confidence": 0.81}, "Mean confidence: 81 %; it is not calibrated"),
        ({"untrained": True}, "Nothing was trained"),
        ({"accuracies": {"now": 86.44}, "images": 2}, "Accuracy on 2 test images: 86.4 % now"),
    ],
)
def test_the_accuracy_is_estimated_only_from_calibrated_confidence(
    outcome: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        report_outcome(None, 3.0, **outcome)
    assert "Done in 3.0 s" in caplog.text and line in caplog.text


def test_the_estimated_range_is_within_0_and_1() -> None:
    assert estimated_range(0.5) == (0.5 - MAX_CALIBRATION_GAP, 0.5 + MAX_CALIBRATION_GAP)
    assert estimated_range(0.01)[0] == 0 and estimated_range(0.99)[1] == 1


def test_doubtful_class_names_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "doubtful_names.csv").write_text("class,reasons\ndog,may be two kinds\nNA,no image is of it\n")
    with caplog.at_level(logging.INFO):
        report_outcome(tmp_path, 3.0, confidence=0.81, calibrated=True)
    assert "Accuracy if these names are right: 81 %" in caplog.text and "Estimated" not in caplog.text
    assert "dog (may be two kinds), NA (no image is of it)" in caplog.text
