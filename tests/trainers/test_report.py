"""The evidence that a run keeps for its report; a failed report fails no run."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from PIL import Image

from coft.report.run_folder import read_run
from tests.trainers.runs import Run, read_rows
from train import WarningPrefix
from trainers import reporting


@pytest.mark.parametrize("trainer", ["CoFT", "DeFT"])
def test_runs_of_two_peers_keep_the_evidence(trained: Run, trainer: str) -> None:
    built = trained(trainer)
    run = read_run(Path(built.output_dir))
    assert run.evidence is not None and run.classes == built.classnames
    assert list(run.images["path"]) == list(built.images.pool.paths)
    assert list(run.evidence.peers) == ["peer_a", "peer_b"]
    logits = built.engine.clip_features().all() @ built.engine.clip.zero_shot_text().t()
    agrees = logits.argmax(dim=1).numpy() == run.evidence.zero_shot
    assert agrees.mean() > 0.6  # the run averages over views
    pairs = zip(run.images["class"], run.images["peer_a"], run.images["peer_b"], strict=True)
    assert all(label in pair for label, *pair in pairs)


def test_a_failed_report_fails_no_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(folder: Path) -> None:
        raise ValueError("no page today")

    monkeypatch.setattr(reporting, "write_report", fail)
    built = run("ZeroshotCLIP")
    assert "The report could not be written" in caplog.text and "no page today" in caplog.text
    assert (Path(built.output_dir) / "summary.json").is_file()


def test_files_of_equal_content_are_listed(run: Run, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(6):
        Image.new("RGB", (40, 40), (40 * number, 0, 90)).save(images / f"{number}.png")
    shutil.copy(images / "2.png", images / "copy, of 2.png")
    settings = {"DATASET__NAME": "Folder", "DATASET__IMAGES": images, "DATASET__CLASSES": "red circle, green square"}
    built = run("ZeroshotCLIP", **settings)
    rows = read_rows(Path(built.output_dir) / "duplicates.csv")
    assert [(row["group"], Path(row["path"]).name) for row in rows] == [("1", "2.png"), ("1", "copy, of 2.png")]
    assert "equal content" in (Path(built.output_dir) / "report.html").read_text()
    (images / "copy, of 2.png").unlink()
    assert not (Path(run("ZeroshotCLIP", **settings).output_dir) / "duplicates.csv").exists()


def test_warnings_of_the_log_are_marked() -> None:
    for level, expected in ((logging.WARNING, "Warning: few"), (logging.INFO, "few")):
        assert WarningPrefix().format(logging.LogRecord("x", level, "", 0, "few", None, None)) == expected
