"""A stopped run resumes to the same bits; a checkpoint holds the weights of its epoch."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from coft.core.errors import UserError
from coft.engine import session
from tests.coft.toys import assert_same_bits
from tests.trainers.changed_sets import change_data_set, permute_labels
from tests.trainers.conftest import saved_weights, weights
from tests.trainers.runs import Run, call_in, read_metrics, read_summary, train_until

# Epochs in which a run is stopped (tests of the methods cover all). CoFT: in Phase I and at the start of Phase II;
# CoFT+: at the start of a round, GRIP: also within one; DeFT: in Phase II.
STOPS = {
    "CoFT": [1, 2],
    "CoFTPlus": [4],
    "DeFT": [3],
    "GRIP": [1, 2],
    "UPL": [1],
    "CoOp": [1],
    "LaFTer": [1],
}


def without_seconds(results: dict[str, Any]) -> dict[str, Any]:
    return {
        key: without_seconds(value) if isinstance(value, dict) else value
        for key, value in results.items()
        if key != "seconds"
    }


def assert_same_file(name: str, *trainers: Any) -> None:
    first, second = ((Path(trainer.output_dir) / name).read_bytes() for trainer in trainers)
    assert first == second


@pytest.mark.parametrize(("trainer", "epoch"), [(trainer, epoch) for trainer in STOPS for epoch in STOPS[trainer]])
def test_an_interrupted_run_resumes_to_the_same_bits(run: Run, trained: Run, trainer: str, epoch: int) -> None:
    backbone = ("resnet", "vit")[epoch % 2]
    whole = trained(trainer, backbone)
    first = run(trainer, backbone, train=False, TRAIN__EVAL_FREQ=1)
    train_until(first, epoch)
    resumed = run(trainer, backbone, TRAIN__EVAL_FREQ=1)
    assert resumed.start_epoch == epoch
    assert_same_bits(weights(whole), weights(resumed))
    assert without_seconds(read_summary(resumed)["results"]) == without_seconds(read_summary(whole)["results"])
    assert_same_file("test_predictions.csv", whole, resumed)
    if whole.session.log:
        assert read_metrics(resumed) == read_metrics(whole)
        assert_same_file("pseudo_labels.csv", whole, resumed)


def test_a_killed_run_resumes_to_the_same_bits(run: Run, trained: Run) -> None:
    first, epoch = run("CoFT", train=False), 4
    child = os.fork()
    if child == 0:
        try:
            call_in(first, epoch, lambda: os.kill(os.getpid(), signal.SIGKILL))
            first.train()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    resumed = run("CoFT")
    assert resumed.start_epoch == epoch
    assert_same_bits(weights(trained("CoFT")), weights(resumed))
    assert not list(Path(resumed.output_dir).rglob("*.tmp*"))


def test_a_run_resumes_in_another_folder(run: Run, trained: Run) -> None:
    first = run("CoFT", out="first", train=False)
    train_until(first, 3)
    second = run("CoFT", out="second", train=False, RESUME=first.output_dir, TRAIN__EVAL_FREQ=1)
    train_until(second, 4)
    assert second.start_epoch == 3
    resumed = run("CoFT", out="second", RESUME=first.output_dir, TRAIN__EVAL_FREQ=1)
    assert resumed.start_epoch == 4
    assert_same_bits(weights(trained("CoFT")), weights(resumed))
    assert [row["epoch"] for row in read_metrics(resumed)] == ["0", "1", "2", "3", "4", "5"]


def test_init_weights_start_the_first_round_only(run: Run, trained: Run) -> None:
    path = Path(trained("UPL").output_dir) / "prompt_learner" / "model.pth.tar-2"
    whole, first = (run("GRIP", out=o, train=o == "whole", MODEL__INIT_WEIGHTS=str(path)) for o in ("whole", "out"))
    train_until(first, 2)
    resumed = run("GRIP", MODEL__INIT_WEIGHTS=str(path))
    assert resumed.start_epoch == 2
    assert_same_bits(weights(whole), weights(resumed))
    start = torch.load(path, weights_only=True)["state_dict"]["ctx"]
    assert (resumed.prompt_learner.ctx - start).abs().mean() > 0.5 * start.abs().mean()  # the last round began anew


def test_the_scaler_of_fp16_is_where_dassl_saves_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "forward_type", lambda *args: torch.float16)  # used on a GPU only
    built = run("CoFT", train=False)
    scaler = built.session.runtime.scaler
    assert isinstance(scaler, torch.amp.GradScaler) and vars(built)["scaler"] is scaler
    monkeypatch.undo()
    assert run("CoFT", train=False).scaler is None


def test_load_epoch_loads_the_weights_of_that_epoch(run: Run, trained: Run) -> None:
    folder = Path(trained("CoFT").output_dir)
    accuracy = {row["epoch"]: float(row["accuracy_both"]) for row in read_metrics(trained("CoFT"))}
    loaded = run("CoFT", train=False)
    loaded.test()
    for epoch, phase in ((3, 2), (1, 1), (5, 2), (2, 1), (None, 2)):  # back and forth
        loaded.load_model(str(folder), epoch=epoch)
        assert loaded.method.peers["peer_a"].phase == phase
        assert loaded.test() == pytest.approx(accuracy[str(epoch or 5)])
        loaded_weights = {key[7:]: value for key, value in weights(loaded).items() if key.startswith("peer_a")}
        assert_same_bits(saved_weights(folder, "peer_a", epoch or 5), loaded_weights)


@pytest.mark.parametrize("trainer", ["CoFTPlus", "UPL", "LaFTer"])
def test_the_last_checkpoint_is_loaded_by_default(run: Run, trained: Run, trainer: str) -> None:
    whole, loaded = trained(trainer), run(trainer, train=False)
    loaded.load_model(whole.output_dir)
    assert_same_bits(weights(whole), weights(loaded))
    assert loaded.test() == pytest.approx(whole.results["accuracy_test"])


def test_the_ends_of_phases_are_evaluated_and_their_checkpoints_kept(run: Run) -> None:
    built = run("CoFT", TRAIN__EVAL_FREQ=0)
    folder = Path(built.output_dir)
    assert sorted(p.name for p in (folder / "peer_a").glob("model*")) == ["model.pth.tar-2", "model.pth.tar-5"]
    assert [row["epoch"] for row in read_metrics(built) if row["accuracy_both"]] == ["0", "2", "5"]


def test_a_finished_run_keeps_its_duration_when_it_is_repeated(run: Run) -> None:
    folder = Path(run("CoFT").output_dir)
    table = pd.read_csv(folder / "metrics.csv", dtype=str)
    table.loc[len(table) - 1, "seconds"] = "5000.0"
    table.to_csv(folder / "metrics.csv", index=False)
    assert 5000 <= read_summary(run("CoFT"))["seconds"] < 5100


def test_checkpoints_of_other_data_or_backbones_are_refused(
    run: Run, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained("CoFT").output_dir
    for backbone in ("other", "vit"):
        with pytest.raises(UserError, match="made with another backbone"):
            run("CoFT", backbone, train=False).load_model(folder)
    with pytest.raises(UserError, match="made with another set of unlabeled images"):
        run("CoFT", train=False, DATASET__NUM_UNLABELED=20).load_model(folder)
    monkeypatch.setattr("tests.conftest.CLASSNAMES", ("red circle", "green square", "yellow stripes"))
    with pytest.raises(UserError, match="made with another class list"):
        run("CoFT", train=False).load_model(folder)


def test_prompts_resume_only_with_the_same_data_and_backbone(run: Run, trained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained("UPL").output_dir, folder)
    for options, name in (
        ({"backbone": "other"}, "backbone"),
        ({"DATASET__NUM_UNLABELED": 20}, "set of unlabeled images"),
    ):
        with pytest.raises(UserError, match=f"made with another {name}.*--output-dir"):
            run("UPL", RESUME=str(folder), **options)
    run("UPL", RESUME=str(folder), out="same")
    record = folder / "trained_on.json"
    record.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"trained_on\.json cannot be read .*; remove it, or train again"):
        run("UPL", RESUME=str(folder), out="damaged")
    record.unlink()
    run("UPL", RESUME=str(folder), out="before")  # runs of older versions have no record


@pytest.mark.parametrize(
    ("trainer", "key"),
    [
        ("UPL", "DATASET__DESCRIPTIONS"),
        ("CoFT", "DATASET__DESCRIPTIONS"),
        ("CoFTPlus", "TRAINER__COFTPLUS__DESCRIPTIONS__FROM"),
    ],
)
def test_a_run_is_not_resumed_with_other_descriptions(run: Run, described: Path, trainer: str, key: str) -> None:
    first, text = run(trainer, train=False, **{key: str(described)}), described.read_text()
    train_until(first, 1)
    described.write_text(text.replace("of ink", "of wood"))
    with pytest.raises(UserError, match=f"made with another file of {key.replace('__', '.')};"):
        run(trainer, **{key: str(described)})
    described.write_text(text)
    assert run(trainer, **{key: str(described)}).start_epoch == 1


def test_coop_is_not_resumed_with_other_labels(run: Run, shapes: Path, tmp_path: Path) -> None:
    train_until(run("CoOp", train=False), 1)
    root = change_data_set(shapes, tmp_path / "permuted", permute_labels)
    with pytest.raises(UserError, match="made with another set of labelled images;"):
        run("CoOp", root=root)
    assert run("CoOp").start_epoch == 1


@pytest.mark.parametrize("trainer", ["UPL", "CoOp"])
def test_a_prompt_is_not_evaluated_on_another_backbone(run: Run, trained: Run, trainer: str) -> None:
    folder = trained(trainer).output_dir
    with pytest.raises(UserError, match=r"made with another backbone.*choose another --model-dir"):
        run(trainer, "other", train=False).load_model(folder)
    run(trainer, train=False).load_model(folder)


def test_missing_and_unsuitable_checkpoints_are_refused(run: Run, trained: Run) -> None:
    with pytest.raises(UserError, match=r"--model-dir .*: No model at .*; give the folder and epoch of a run"):
        run("CoFT", train=False).load_model(trained("CoOp").output_dir)
    with pytest.raises(UserError, match=r"--model-dir nowhere: No model at nowhere"):
        run("CoOp", train=False).load_model("nowhere", epoch=3)
    with pytest.raises(UserError, match=r"checkpoint in .* does not fit backbone .* and trainer CoOp"):
        run("CoOp", train=False, out="other", TRAINER__COOP__N_CTX=4).load_model(trained("CoOp").output_dir)


def test_checkpoints_have_the_keys_of_dassl_and_no_frozen_weights(trained: Run) -> None:
    state = torch.load(Path(trained("CoFT").output_dir) / "peer_a" / "model.pth.tar-5", weights_only=True)
    assert {"state_dict", "epoch", "optimizer", "scheduler"} <= state.keys()
    assert not any(key.startswith("encoder.conv1") for key in state["state_dict"])


def test_a_trainer_without_epochs_cannot_be_resumed(run: Run, trained: Run) -> None:
    with pytest.raises(UserError, match="--resume: ZeroshotCLIP has no epochs"):
        run("ZeroshotCLIP", RESUME=trained("CoFT").output_dir)
