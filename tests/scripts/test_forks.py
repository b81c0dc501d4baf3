"""Which runs of a comparison take Phase I from a finished one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.comparing import plan
from scripts.comparing.forks import with_phase1_of
from scripts.comparing.methods import Method
from scripts.comparing.plan import Run


def a_run(folder: Path, trainer: str = "CoFT", **settings: Any) -> Run:
    config = {"TRAINER.COFT.FILTER": "both", "TRAINER.COFT.N_CTX": 0} | settings
    return Run(Method("row", trainer), "digits", "ViT-B/16", 1, ("--seed", "1"), folder, config)


def finish(run: Run, epochs: tuple[int, ...] = (10, 20)) -> None:
    for peer in ("peer_a", "peer_b"):
        (run.folder / peer).mkdir(parents=True)
        for epoch in epochs:
            (run.folder / peer / f"model.pth.tar-{epoch}").touch()
    (run.folder / plan.SUMMARY).write_text(json.dumps({"config": yaml.safe_dump(run.config)}))


def test_a_run_takes_phase_one_where_it_is_the_same(tmp_path: Path) -> None:
    done = a_run(tmp_path / "done")
    wanted = a_run(tmp_path / "wanted", **{"TRAINER.COFT.FILTER": "none"})
    assert with_phase1_of(wanted, [wanted, done]) == wanted.arguments  # it is not finished
    finish(done)
    assert with_phase1_of(wanted, [wanted, done])[-2:] == ("TRAIN.FORK", str(done.folder))


@pytest.mark.parametrize(
    "other",
    [
        {"settings": {"TRAINER.COFT.N_CTX": 4}},
        {"settings": {"TRAINER.COFT.FILTER": "both-hard"}},
        {"seed": 2},
        {"dataset": "icons"},
        {"backbone": "RN50"},
        {"trainer": "UPL"},
        {"trainer": "CoFTPlus", "settings": {"TRAINER.COFTPLUS.DESCRIPTIONS.FROM": "auto"}},
    ],
)
def test_a_run_takes_no_other_phase_one(tmp_path: Path, other: dict[str, Any]) -> None:
    trainer = other.pop("trainer", "CoFT")
    done = replace(a_run(tmp_path / "done", trainer, **other.pop("settings", {})), **other)
    finish(done)
    wanted = a_run(tmp_path / "wanted", "UPL" if trainer == "UPL" else "CoFT")
    assert with_phase1_of(wanted, [done]) == wanted.arguments


def test_a_run_whose_phase_one_was_not_kept_lends_none(tmp_path: Path) -> None:
    done, wanted = a_run(tmp_path / "done"), a_run(tmp_path / "wanted")
    finish(done, (20,))
    assert with_phase1_of(wanted, [done]) == wanted.arguments
