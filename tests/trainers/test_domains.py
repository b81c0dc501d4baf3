"""A data set with domains: its templates and its name in results are those of the domain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coft.core.errors import UserError
from datasets.pacs import CLASSNAMES, TEMPLATES
from tests.datasets.data_roots import write_image


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
def test_a_run_on_a_domain(run: Callable[..., Any], drawings: Path, domain: str) -> None:
    trainer = run("ZeroshotCLIP", root=drawings, DATASET__NAME="PACSDomain", DATASET__DOMAIN=domain)
    assert trainer.session.task.templates == TEMPLATES[domain]
    assert json.loads((Path(trainer.output_dir) / "summary.json").read_text())["dataset"] == f"PACS {domain}"


def test_other_data_sets_are_called_as_registered(trained: Callable[..., Any]) -> None:
    summary = Path(trained("ZeroshotCLIP").output_dir) / "summary.json"
    assert json.loads(summary.read_text())["dataset"] == "Shapes"


@pytest.mark.parametrize("sampler", ["SeqDomainSampler", "RandomClassSampler"])
def test_a_sampler_that_makes_no_batch_is_named(run: Callable[..., Any], sampler: str) -> None:
    few = {"DATALOADER__TRAIN_X__BATCH_SIZE": 1000, "DATALOADER__TRAIN_X__N_INS": 1}
    with pytest.raises(UserError, match=f"DATALOADER.TRAIN_X.SAMPLER {sampler}: .*; leave it at RandomSampler"):
        run("CoFT", DATALOADER__TRAIN_X__SAMPLER=sampler, **few)
