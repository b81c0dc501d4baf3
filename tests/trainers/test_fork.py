"""Runs that take Phase I from another run (TRAIN.PHASE1_FROM)."""

from pathlib import Path
from typing import Any

import pytest

from coft.core.errors import UserError
from coft.core.experiment import CONFIG
from tests.coft.toys import assert_same_bits
from tests.trainers.conftest import in_section, weights
from tests.trainers.runs import Run, read_metrics
from trainers.forks import phase1_difference


def parent(trained: Run, trainer: str, backbone: str = "resnet") -> Any:
    whole = trained(trainer, backbone)
    (Path(whole.output_dir) / CONFIG).write_text(whole.cfg.dump())
    return whole


@pytest.mark.parametrize(("trainer", "backbone"), [("CoFT", "vit"), ("CoFTPlus", "resnet"), ("DeFT", "resnet")])
def test_a_fork_ends_in_the_same_bits_as_the_whole_run(run: Run, trained: Run, trainer: str, backbone: str) -> None:
    whole = parent(trained, trainer, backbone)
    fork = run(trainer, backbone, out="fork", TRAIN__PHASE1_FROM=whole.output_dir, TRAIN__EVAL_FREQ=1)
    assert fork.start_epoch == next(e for e in range(9) if whole.method.phase(e) == 2)
    assert_same_bits(weights(whole), weights(fork))
    assert read_metrics(fork) == read_metrics(whole)
    predictions = [(Path(t.output_dir) / "test_predictions.csv").read_bytes() for t in (whole, fork)]
    assert predictions[0] == predictions[1]


def test_coft_plus_from_phase_one_of_coft_ends_in_the_same_bits(run: Run, trained: Run) -> None:
    settings = in_section("COFTPLUS", {"ROUNDS": 1, "DESCRIPTIONS__FROM": "none"})
    whole = run("CoFTPlus", **settings)
    fork = run("CoFTPlus", out="fork", TRAIN__PHASE1_FROM=parent(trained, "CoFT").output_dir, **settings)
    assert fork.start_epoch == 2
    assert_same_bits(weights(whole), weights(fork))


def test_a_fork_may_differ_in_settings_of_phase_two_only(run: Run, trained: Run) -> None:
    whole = parent(trained, "CoFT")
    fork = run("CoFT", out="other", TRAIN__PHASE1_FROM=whole.output_dir, **in_section("COFT", {"FILTER": "partner"}))
    before, after = weights(whole), weights(fork)
    assert any(not before[key].equal(after[key]) for key in before)
    with pytest.raises(
        UserError, match=r"TRAIN\.PHASE1_FROM .*PRIOR_TAU is 0\.5 there, 0\.1 here, and Phase I depends on it"
    ):
        run(
            "CoFT",
            out="wrong",
            train=False,
            TRAIN__PHASE1_FROM=whole.output_dir,
            **in_section("COFT", {"PRIOR_TAU": 0.1}),
        )


def test_a_fork_without_a_finished_phase_one_is_refused(run: Run, trained: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"TRAIN\.PHASE1_FROM .*: contains no run; give the output folder of one"):
        run("CoFT", out="wrong", train=False, TRAIN__PHASE1_FROM=str(tmp_path / "nothing"))
    unfinished = run("CoFT", out="unfinished", train=False)
    (tmp_path / "unfinished").mkdir(exist_ok=True)
    (tmp_path / "unfinished" / CONFIG).write_text(unfinished.cfg.dump())
    with pytest.raises(UserError, match=r"TRAIN\.PHASE1_FROM .*: has not finished Phase I"):
        run("CoFT", out="wrong", train=False, TRAIN__PHASE1_FROM=str(tmp_path / "unfinished"))
    (tmp_path / "unfinished" / "peer_a").mkdir(exist_ok=True)
    (tmp_path / "unfinished" / "peer_a" / "model.pth.tar-1").touch()  # Phase I has two epochs
    with pytest.raises(UserError, match=r"TRAIN\.PHASE1_FROM .*: has not finished Phase I"):
        run("CoFT", out="wrong", TRAIN__PHASE1_FROM=str(tmp_path / "unfinished"))
    with pytest.raises(UserError, match=r"TRAIN\.PHASE1_FROM: UPL has no two phases"):
        run("UPL", out="wrong", train=False, TRAIN__PHASE1_FROM=str(tmp_path))


def test_settings_that_change_phase_one() -> None:
    settings = {
        "TRAINER.COFT.FILTER": "min-p-clean",
        "TRAINER.COFT.N_CTX": 0,
        "TRAINER.COFT.PHASE2.LR": 1e-5,
        "OUTPUT_DIR": "a",
    }
    for key, value, difference in [
        ("TRAINER.COFT.FILTER", "partner", None),
        ("TRAINER.COFT.FILTER", "none", "TRAINER.COFT.FILTER"),
        ("TRAINER.COFT.FILTER", "min-p-clean-hard", "TRAINER.COFT.FILTER"),
        ("TRAINER.COFT.PHASE2.LR", 1e-4, None),
        ("TRAINER.COFT.N_CTX", 4, "TRAINER.COFT.N_CTX"),
        ("OUTPUT_DIR", "b", None),
        ("TRAIN.EVAL_FREQ", 2, None),
        ("TRAIN.GUARD", False, "TRAIN.GUARD"),  # Phase I may have trained nothing
    ]:
        assert phase1_difference(settings, settings | {key: value}) == difference


def test_coft_plus_shares_phase_one_with_coft_unless_it_has_descriptions_or_rounds() -> None:
    coft = {"TRAINER.NAME": "CoFT", "TRAINER.COFT.N_CTX": 0, "DATASET.CLASSES": ""}
    plus = {
        "TRAINER.NAME": "CoFTPlus",
        "TRAINER.COFTPLUS.N_CTX": 0,
        "DATASET.CLASSES": "",
        "TRAINER.COFTPLUS.ROUNDS": 1,
    }
    for source, classes, difference in [
        ("given", "", None),
        ("none", "names.txt", None),
        ("given", "names.txt", "TRAINER.NAME"),
        ("auto", "", "TRAINER.NAME"),
    ]:
        settings = plus | {"TRAINER.COFTPLUS.DESCRIPTIONS.FROM": source, "DATASET.CLASSES": classes}
        assert phase1_difference(coft | {"DATASET.CLASSES": classes}, settings) == difference
    undescribed = plus | {"TRAINER.COFTPLUS.DESCRIPTIONS.FROM": "none"}
    assert phase1_difference(coft, undescribed | {"TRAINER.COFTPLUS.N_CTX": 4}) == "TRAINER.COFT.N_CTX"
    assert phase1_difference(coft, undescribed | {"TRAINER.COFTPLUS.ROUNDS": 2}) == "TRAINER.NAME"
