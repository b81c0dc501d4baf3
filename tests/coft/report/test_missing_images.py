"""Images of a run that have been moved away: the report keeps its pictures, and report and review say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from coft.cli.main import main
from coft.report.page import page
from coft.report.run_folder import read_run
from coft.report.write import write_report

from .runs import write_images, write_run

CLASSES = ["forest", "sea", "street"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    paths = write_images(tmp_path / "photos", [f"{i}.png" for i in range(12)])
    return write_run(tmp_path / "run", paths, CLASSES, dataset="Folder")


def test_a_report_with_pictures_is_not_replaced_by_one_without(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = write_report(run).read_bytes()
    (tmp_path / "photos").rename(tmp_path / "sorted")
    assert main(["report", str(run)]) == 2
    line = capsys.readouterr().err
    assert "12 of 12 images" in line and str(tmp_path / "photos") in line and "--undo" in line
    assert (run / "report.html").read_bytes() == before
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0


def test_some_missing_images_are_a_warning(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_run(run).missing_notice() == ""
    (tmp_path / "photos" / "3.png").unlink()
    write_report(run)
    assert "1 of 12 images" in caplog.text and "3.png" in caplog.text
    assert "1 of 12 images" in page(read_run(run)).decode()


def test_images_of_a_benchmark_are_not_looked_for(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [f"gone/{i}.png" for i in range(12)], CLASSES, dataset="EuroSAT")
    assert read_run(folder).missing_notice() == ""
