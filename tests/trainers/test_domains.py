"""Runs on a domain use its templates and report its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.pacs import CLASSNAMES, TEMPLATES
from tests.datasets.data_roots import write_image
from tests.trainers.runs import Run, read_summary


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """A data root with cartoons and sketches, six of each class."""
    for number, domain in enumerate(("cartoon", "sketch")):
        for label, name in enumerate(CLASSNAMES):
            for i in range(6):
                path = tmp_path / "data" / "pacs" / domain / name / f"{i}.png"
                write_image(path, seed=100 * number + 10 * label + i)
    return tmp_path / "data"


@pytest.mark.parametrize("domain", ["cartoon", "sketch"])
def test_a_run_uses_the_templates_and_the_name_of_its_domain(run: Run, drawings: Path, domain: str) -> None:
    trainer = run("ZeroshotCLIP", root=drawings, DATASET__NAME="PACSDomain", DATASET__DOMAIN=domain)
    assert trainer.session.task.templates == TEMPLATES[domain]
    assert read_summary(trainer)["dataset"] == f"PACS {domain}"
