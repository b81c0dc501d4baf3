"""What a run says in the end."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from coft.engine.messages import Outcome, report_outcome
from coft.labelling.calibration import MAX_CALIBRATION_GAP, estimated_range

IF = "if no name is wrong or missing"


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (
            Outcome(confidence=0.81, calibrated=True),
            f"Estimated accuracy: 81 %, between 70 and 92, {IF}",
        ),
        (
            Outcome(confidence=0.97, calibrated=True),
            f"Estimated accuracy: 97 %, between 86 and 100, {IF}",
        ),
        (Outcome(confidence=0.81), "Mean confidence: 81 %; it is not calibrated, so the accuracy is unknown"),
        (Outcome(untrained=True), "Nothing was trained: these are the labels of zero-shot CLIP"),
        (Outcome(accuracies={"now": 86.44}, images=2), "Accuracy on 2 test images: 86.4 % now"),
    ],
)
def test_an_accuracy_is_estimated_where_confidence_is_calibrated(
    outcome: Outcome, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        report_outcome(None, 3.0, outcome)
    assert [record.getMessage() for record in caplog.records] == ["Done in 3.0 s", line]


def test_a_range_is_of_shares() -> None:
    assert estimated_range(0.5) == (0.5 - MAX_CALIBRATION_GAP, 0.5 + MAX_CALIBRATION_GAP)
    assert estimated_range(0.01)[0] == 0 and estimated_range(0.99)[1] == 1


def test_names_that_may_be_wrong_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "doubtful_names.csv").write_text("class,reasons\ndog,may be two kinds\nNA,no image is of it\n")
    with caplog.at_level(logging.INFO):
        report_outcome(tmp_path, 3.0, Outcome())
    assert "Names to look at: dog, NA; the report shows why" in caplog.text
