"""Messages at the end of a run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from coft.engine.messages import report_accuracies, report_done, report_estimate, report_names


@pytest.mark.parametrize(
    ("confidence", "calibrated", "doubtful", "line"),
    [
        (0.81, True, False, "Estimated accuracy: 81 %, between 71 and 91, if no name is wrong or missing"),
        (0.97, True, False, "Estimated accuracy: 97 %, between 87 and 100, if no name is wrong or missing"),
        (0.81, True, True, "Accuracy if these names are right: 81 %, between 71 and 91"),
        (0.81, False, True, "Mean confidence: 81 %; it is not calibrated, so the accuracy is unknown"),
    ],
)
def test_the_accuracy_is_estimated_only_from_calibrated_confidence(
    confidence: float, calibrated: bool, doubtful: bool, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        report_estimate(confidence, calibrated, doubtful)
    assert caplog.messages == [line]


def test_the_end_of_a_run_has_its_duration_and_accuracies(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        report_done(3.0, untrained=True)
        report_accuracies({"now": 86.44}, images=2)
    assert caplog.messages == [
        "Done in 3.0 s",
        "Nothing was trained: these are the labels of zero-shot CLIP",
        "Accuracy on 2 test images: 86.4 % now",
    ]


def test_doubtful_class_names_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not report_names(tmp_path) and not report_names(None)
    (tmp_path / "doubtful_names.csv").write_text("class,reasons\ndog,may be two kinds\nNA,no image is of it\n")
    with caplog.at_level(logging.INFO):
        assert report_names(tmp_path)
    assert "dog (may be two kinds), NA (no image is of it)" in caplog.text
