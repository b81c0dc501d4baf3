"""Which runs there are, where they are kept, and which run takes Phase I from which."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from coft.core.errors import UserError
from scripts.comparing.methods import ABLATIONS, FULL, Method, load_ablations
from scripts.comparing.options import make_grid, make_parser
from scripts.comparing.plan import (
    SUMMARY,
    Grid,
    Run,
    arguments_with_phase1,
    plan,
    plan_ablations,
    weights_of,
)
from scripts.launch import ROOT

UPL = Method("UPL", "UPL")
ZERO_SHOT = Method("ZeroshotCLIP", "ZeroshotCLIP")
FILTER = "TRAINER.COFT.FILTER"


def grid_of(output: Path, seeds: Sequence[int] = (1,), settings: Any = (), backbones: Any = (None,)) -> Grid:
    return Grid(["digits"], seeds, backbones, output=output, settings=settings)


# ------------------------------------------------------------------ runs


def finish(run: Run, folder: Path | None = None, **changes: object) -> None:
    """Leave the summary of a run."""
    folder = folder or run.folder
    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_dump({**run.config, "OUTPUT_DIR": str(folder), **changes})
    summary = {"config": config, "backbone_fingerprint": weights_of(run.backbone), "seconds": 1.0}
    (folder / SUMMARY).write_text(json.dumps(summary))


def test_a_run_for_each_seed_where_seeds_matter(tmp_path: Path) -> None:
    runs = plan([ZERO_SHOT, UPL, Method("CoOp, 4 shots", "CoOp", shots=4)], grid_of(tmp_path, (1, 2)))
    seeds = [("ZeroshotCLIP", 1), ("UPL", 1), ("UPL", 2), ("CoOp, 4 shots", 1), ("CoOp, 4 shots", 2)]
    assert [(run.method.name, run.seed) for run in runs] == seeds
    assert runs[1].folder == tmp_path / "digits" / "UPL" / "embedded" / "seed1"  # where run.sh puts it
    assert runs[3].folder == tmp_path / "digits" / "CoOp" / "embedded_4shots" / "seed1"
    assert runs[3].config["DATASET.NUM_SHOTS"] == 4 and runs[3].config["OPTIM.MAX_EPOCH"] == 100
    assert str(runs[3].folder) in runs[3].arguments


def test_data_are_in_the_projects_folder_wherever_the_script_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    monkeypatch.delenv("DATA", raising=False)
    for flags, expected in (((), ROOT / "data"), (("--data", "mine"), tmp_path / "mine")):
        (run,) = plan([ZERO_SHOT], make_grid(make_parser("compare", "").parse_intermixed_args(["digits", *flags])))
        assert run.arguments[run.arguments.index("--root") + 1] == str(expected)


def test_settings_go_to_those_who_have_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    n_ctx = ("TRAINER.UPL.N_CTX", "4")
    upl, zero_shot = plan([UPL, ZERO_SHOT], grid_of(tmp_path, settings=(n_ctx, ("OPTIM.LR", "0.1"))))
    assert upl.config["TRAINER.UPL.N_CTX"] == 4 and "TRAINER.UPL.N_CTX" not in zero_shot.config
    assert upl.folder.parent == tmp_path / "digits" / "UPL" / "embedded" and upl.folder.name != "seed1"
    assert [r.message for r in caplog.records] == ["TRAINER.UPL.N_CTX 4 is for UPL alone; others have no such key"]
    wrong = ((FILTER, "min-p-clear"),)
    for method, settings, named in (
        (ZERO_SHOT, (n_ctx,), r"TRAINER\.UPL\.N_CTX"),
        (UPL, (("OPTIM.EPOCHS", "4"),), r"OPTIM\.EPOCHS"),
        (Method("a variant", "CoFT", wrong), (), r"TRAINER\.COFT\.FILTER is 'min-p-clear'"),
    ):
        with pytest.raises(UserError, match=named):
            plan([method], grid_of(tmp_path, settings=settings))


def test_finished_runs_are_known_by_their_config_wherever_they_are(tmp_path: Path) -> None:
    (run,) = plan([UPL], grid_of(tmp_path))
    assert run.summary() is None
    elsewhere = tmp_path / "moved" / "here"
    finish(run, elsewhere, **{"DATALOADER.NUM_WORKERS": 7, "DATASET.ROOT": "/elsewhere", "TRAIN.PRINT_FREQ": 3})
    (again,) = plan([UPL], grid_of(tmp_path))
    assert again.folder == elsewhere and again.summary()
    (changed,) = plan([UPL], grid_of(tmp_path, settings=(("OPTIM.LR", "0.1"),)))
    assert changed.folder != elsewhere and changed.summary() is None
    (seed2,) = plan([UPL], grid_of(tmp_path, (2,)))
    assert seed2.summary() is None


@pytest.mark.parametrize("key", ["OPTIM.LR", "TRAINER.UPL.SEEDS_PER_CLASS", "SEED", "INPUT.AUGMENT", "A.NEW_KEY"])
def test_a_summary_with_another_setting_is_another_run(tmp_path: Path, key: str) -> None:
    (run,) = plan([UPL], grid_of(tmp_path))
    finish(run, **{key: 7})
    (again,) = plan([UPL], grid_of(tmp_path))
    assert again.summary() is None and again.folder != run.folder  # what is there is left alone
    assert again.folder.name.startswith("seed1-")
    (third,) = plan([UPL], grid_of(tmp_path))
    assert third.folder == again.folder


def test_other_weights_under_the_same_name_are_another_run(tmp_path: Path) -> None:
    (run,) = plan([UPL], grid_of(tmp_path))
    finish(run)
    summary = json.loads((run.folder / SUMMARY).read_text())
    (run.folder / SUMMARY).write_text(json.dumps({**summary, "backbone_fingerprint": "other"}))
    (again,) = plan([UPL], grid_of(tmp_path))
    assert again.summary() is None and again.folder != run.folder


def test_an_unfinished_run_goes_on_where_it_is(tmp_path: Path) -> None:
    (run,) = plan([UPL], grid_of(tmp_path))
    run.folder.mkdir(parents=True)
    (run.folder / "log.txt").touch()
    (run.folder / "config.yaml").write_text(yaml.safe_dump(run.config))
    assert plan([UPL], grid_of(tmp_path))[0].folder == run.folder
    (run.folder / "config.yaml").write_text(yaml.safe_dump({**run.config, "OPTIM.LR": 7.0}))
    assert plan([UPL], grid_of(tmp_path))[0].folder != run.folder


# ------------------------------------------------------------------ changes of a method


@pytest.mark.parametrize("trainer", ABLATIONS)
def test_the_lists_can_be_run(trainer: str, tmp_path: Path) -> None:
    ablations = load_ablations(ABLATIONS[trainer])
    runs, notes = plan_ablations(ablations, grid_of(tmp_path, backbones=["embedded-vit"]))
    assert {run.method.trainer for run in runs} == {trainer} and not notes
    assert {run.method.name for run in runs} == {method.name for method in ablations}


def change(name: str, *settings: tuple[str, str], **more: Any) -> Method:
    return Method(name, "CoFT", settings, group=FULL if name == FULL else "group", **more)


def test_a_change_that_is_none_is_left_out_with_a_note(tmp_path: Path) -> None:
    ablations = [change(FULL), *(change(rule, (FILTER, rule)) for rule in ("min-p-clean", "partner"))]
    ablations.append(change("one peer", measure="single"))
    runs, notes = plan_ablations(ablations, grid_of(tmp_path))
    assert [run.method.name for run in runs] == [FULL, "partner", "one peer"]
    assert notes == ["min-p-clean: is what the full method does"]
    runs, notes = plan_ablations(ablations, grid_of(tmp_path, settings=((FILTER, "partner"),)))
    assert [run.method.name for run in runs] == [FULL, "min-p-clean", "one peer"] and notes[0].startswith("partner:")


def test_changes_go_with_the_backbone_they_are_for(tmp_path: Path) -> None:
    ablations = [change(FULL), change("v", ("TRAINER.COFT.VISUAL", "norms-and-biases"), only="vit")]
    runs, _ = plan_ablations(ablations, grid_of(tmp_path, backbones=["embedded", "embedded-vit"]))
    rows = [(run.method.name, run.backbone) for run in runs]
    assert rows == [(FULL, "embedded"), (FULL, "embedded-vit"), ("v", "embedded-vit")]


# ------------------------------------------------------------------ Phase I of another run


def a_run(folder: Path, trainer: str = "CoFT", **settings: Any) -> Run:
    config = {FILTER: "min-p-clean", "TRAINER.COFT.N_CTX": 0} | settings
    return Run(Method("row", trainer), "digits", "ViT-B/16", 1, ("--seed", "1"), folder, config)


def finish_phases(run: Run, epochs: tuple[int, ...] = (10, 20)) -> None:
    for peer in ("peer_a", "peer_b"):
        (run.folder / peer).mkdir(parents=True)
        for epoch in epochs:
            (run.folder / peer / f"model.pth.tar-{epoch}").touch()
    (run.folder / SUMMARY).write_text(json.dumps({"config": yaml.safe_dump(run.config)}))


def test_a_run_takes_phase_one_where_it_is_the_same(tmp_path: Path) -> None:
    done, wanted = a_run(tmp_path / "done"), a_run(tmp_path / "wanted", **{FILTER: "partner"})
    assert arguments_with_phase1(wanted, [wanted, done]) == wanted.arguments  # it is not finished
    finish_phases(done)
    assert arguments_with_phase1(wanted, [wanted, done])[-2:] == ("TRAIN.PHASE1_FROM", str(done.folder))


@pytest.mark.parametrize(
    "other",
    [
        {"settings": {"TRAINER.COFT.N_CTX": 4}},
        {"settings": {FILTER: "min-p-clean-hard"}},
        {"seed": 2},
        {"dataset": "icons"},
        {"backbone": "RN50"},
        {"trainer": "UPL"},
        {"trainer": "CoFTPlus", "settings": {"TRAINER.COFTPLUS.DESCRIPTIONS.FROM": "auto"}},
        {"epochs": (20,)},  # Phase I was not kept
    ],
)
def test_a_run_takes_no_other_phase_one(tmp_path: Path, other: dict[str, Any]) -> None:
    trainer, epochs = other.pop("trainer", "CoFT"), other.pop("epochs", (10, 20))
    done = replace(a_run(tmp_path / "done", trainer, **other.pop("settings", {})), **other)
    finish_phases(done, epochs)
    wanted = a_run(tmp_path / "wanted", "UPL" if trainer == "UPL" else "CoFT")
    assert arguments_with_phase1(wanted, [done]) == wanted.arguments
