"""Files that a trainer saves and loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dassl.utils import load_checkpoint
from toys import NO_TEST, Make, Net, upstream_fault


def test_saved_files(make_trainer: Make) -> None:
    trainer = make_trainer("OPTIM.MAX_EPOCH", 3, "TRAIN.CHECKPOINT_FREQ", 2, *NO_TEST)
    trainer.train()
    for name in ("first", "second"):
        folder = Path(trainer.output_dir) / name
        assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "model.pth.tar-2", "model.pth.tar-3"]
        assert (folder / "checkpoint").read_text().strip() == "model.pth.tar-3"
        found = load_checkpoint(str(folder / "model.pth.tar-3"))
        assert set(found) == {"state_dict", "epoch", "optimizer", "scheduler", "val_result"}
        assert (found["epoch"], found["val_result"]) == (3, None)
        assert found["state_dict"]["_extra_state"]["steps"] == 9
    assert any((Path(trainer.output_dir) / "tensorboard").iterdir())


def test_best_model_is_restored_for_the_final_test(make_trainer: Make, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer("OPTIM.MAX_EPOCH", 4, "TEST.FINAL_MODEL", "best_val")
    results = [10.0, 30.0, 30.0, 20.0, 50.0]
    splits = []

    def test(split: str | None = None) -> float:
        splits.append(split)
        return results[len(splits) - 1]

    trainer.test = test
    trainer.train()
    assert splits == ["val"] * 4 + [None]
    best = load_checkpoint(str(Path(trainer.output_dir) / "first" / "model-best.pth.tar"))
    assert (best["epoch"], best["val_result"]) == (2, 30.0)
    printed = capsys.readouterr().out
    assert "Deploy the model with the best val performance\n" in printed
    assert f"Load {trainer.output_dir}/first/model-best.pth.tar to first (epoch=2, val_result=30.0)\n" in printed
    assert trainer.first.seen["steps"] == 6


@upstream_fault("formats None as a number")
def test_model_of_a_given_epoch_is_loaded(make_trainer: Make) -> None:
    trainer = make_trainer(*NO_TEST)
    trainer.train()
    other = make_trainer()
    other.load_model(trainer.output_dir, epoch=2)
    for expected, loaded in zip(trainer.first.parameters(), other.first.parameters(), strict=True):
        assert torch.equal(expected, loaded)
    assert other.first.seen["steps"] == 6


def test_missing_models_are_named(make_trainer: Make, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer()
    trainer.load_model("")
    assert "load_model() is skipped" in capsys.readouterr().out
    for epoch, name in ((None, "model-best.pth.tar"), (7, "model.pth.tar-7")):
        with pytest.raises(FileNotFoundError, match=f"No model at .*{name}"):
            trainer.load_model(trainer.output_dir, epoch=epoch)


def test_loading_is_strict(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.save_model(0, trainer.output_dir, val_result=1.0, model_name="model-best.pth.tar")
    trainer.first.more = nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="more"):
        trainer.load_model(trainer.output_dir)


@upstream_fault("strips names that it then misses")
def test_wrapped_models_are_saved_and_loaded(make_trainer: Make) -> None:
    trainer = make_trainer()
    wrapped: Any = torch.optim.swa_utils.AveragedModel(Net())
    trainer.register_model("wrapped", wrapped)
    trainer.save_model(0, trainer.output_dir, val_result=1.0, model_name="model-best.pth.tar")
    saved = wrapped.module.layers[2].weight.clone()
    with torch.no_grad():
        wrapped.module.layers[2].weight.zero_()
    trainer.load_model(trainer.output_dir)
    assert torch.equal(wrapped.module.layers[2].weight, saved)
