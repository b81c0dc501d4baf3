"""Checkpoints and pre-trained weights."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    save_checkpoint,
)
from toys import checkpoint, ours_only, upstream_fault


def test_files_of_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out" / "model"
    save_checkpoint(checkpoint(nn.Linear(2, 2), val_result=None), str(folder))
    assert capsys.readouterr().out == f"Checkpoint saved to {folder}/model.pth.tar-3\n"
    assert (folder / "checkpoint").read_text().strip() == "model.pth.tar-3"
    save_checkpoint(checkpoint(nn.Linear(2, 2)), str(folder), model_name="model-best.pth.tar")
    assert (folder / "checkpoint").read_text().strip() == "model-best.pth.tar"
    save_checkpoint({**checkpoint(nn.Linear(2, 2)), "epoch": 4}, str(folder), is_best=True)
    names = ["checkpoint", "model-best.pth.tar", "model.pth.tar-3", "model.pth.tar-4"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert load_checkpoint(str(folder / "model-best.pth.tar"))["epoch"] == 4


def test_names_of_parallel_wrapper_are_stripped(tmp_path: Path) -> None:
    inner = nn.Linear(2, 2)
    save_checkpoint(checkpoint(nn.DataParallel(inner)), str(tmp_path))
    loaded = load_checkpoint(str(tmp_path / "model.pth.tar-3"))
    assert list(loaded["state_dict"]) == ["weight", "bias"]


@upstream_fault("writes in place")
def test_failed_save_keeps_the_old_file(tmp_path: Path) -> None:
    save_checkpoint(checkpoint(nn.Linear(2, 2)), str(tmp_path))
    before = (tmp_path / "model.pth.tar-3").read_bytes()
    unpicklable = checkpoint(nn.Linear(2, 2), more=lambda: None)
    with pytest.raises(Exception, match=r"pickle|lambda"):
        save_checkpoint(unpicklable, str(tmp_path))
    assert (tmp_path / "model.pth.tar-3").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "model.pth.tar-3"]


@ours_only
@pytest.mark.parametrize("keep", [0, 10, 700])
def test_damaged_checkpoint_is_named(keep: int, tmp_path: Path) -> None:
    save_checkpoint(checkpoint(nn.Linear(2, 2)), str(tmp_path))
    path = tmp_path / "model.pth.tar-3"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises((RuntimeError, pickle.UnpicklingError), match=re.escape(str(path))) as caught:
        load_checkpoint(str(path))
    assert "\n" not in str(caught.value)


def test_resume(tmp_path: Path) -> None:
    cfg = get_cfg_default().OPTIM
    model, new_model = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer, new_optimizer = build_optimizer(model, cfg), build_optimizer(new_model, cfg)
    scheduler, new_scheduler = build_lr_scheduler(optimizer, cfg), build_lr_scheduler(new_optimizer, cfg)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    saved = checkpoint(model, optimizer=optimizer.state_dict(), scheduler=scheduler.state_dict())
    save_checkpoint(saved, str(tmp_path))
    assert resume_from_checkpoint(str(tmp_path), new_model, new_optimizer, new_scheduler) == 3
    assert torch.equal(new_model.weight, model.weight)
    momentum, new_momentum = (part.state_dict()["state"][0]["exp_avg"] for part in (optimizer, new_optimizer))
    assert torch.equal(new_momentum, momentum)
    assert new_scheduler.last_epoch == 1
    assert resume_from_checkpoint(str(tmp_path), new_model) == 3


def test_matching_weights_are_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = nn.ModuleDict({"same": nn.Linear(2, 2), "size": nn.Linear(3, 3), "gone": nn.Linear(1, 1)})
    target = nn.ModuleDict({"same": nn.Linear(2, 2), "size": nn.Linear(2, 2), "own": nn.Linear(1, 1)})
    initial = {name: value.clone() for name, value in target.state_dict().items()}
    path = str(tmp_path / "weights.pth")
    for saved in ({"state_dict": nn.DataParallel(source).state_dict()}, source.state_dict()):
        target.load_state_dict(initial)
        torch.save(saved, path)
        load_pretrained_weights(target, path)
        for name, value in target.state_dict().items():
            expected = source.state_dict()[name] if name.startswith("same") else initial[name]
            assert torch.equal(value, expected), name
        printed = capsys.readouterr().out
        assert printed.startswith(f"Successfully loaded pretrained weights from {path}\n")
        assert "'size.weight', 'size.bias', 'gone.weight', 'gone.bias'" in printed


def test_no_matching_weights(tmp_path: Path) -> None:
    torch.save(nn.Linear(5, 5).state_dict(), tmp_path / "weights.pth")
    target = nn.Linear(2, 2)
    before = target.weight.clone()
    with pytest.warns(UserWarning, match=r"weights\.pth"):
        load_pretrained_weights(target, str(tmp_path / "weights.pth"))
    assert torch.equal(target.weight, before)
