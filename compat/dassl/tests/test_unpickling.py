"""Pickles and checkpoints from others: loaded as plain data, or refused."""

from __future__ import annotations

import io
import os
import pickle
import re
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dassl.config import get_cfg_default
from dassl.data.datasets import Datum
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint, resume_from_checkpoint
from toys import UPSTREAM, checkpoint, follow, ours_only

if not UPSTREAM:
    from dassl.utils import UnsafePickleError, load_pickle


def upstream_checkpoint(num_epochs: int) -> dict[str, Any]:
    """Make a checkpoint as upstream does, with a constant warm-up of one epoch before a cosine schedule of six."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    rates = [0.01]
    for _ in range(num_epochs):
        if len(rates) > 1:
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            successor.step()
        rates.append(float(successor.get_last_lr()[0]))
    optimizer.param_groups[0]["lr"] = rates[-1]
    scheduler = {
        "successor": successor,
        "warmup_epoch": 1,
        "cons_lr": 0.01,
        "base_lrs": [1.0],
        "last_epoch": min(num_epochs, 1),
        "verbose": False,
        "_step_count": num_epochs + 1,
        "_get_lr_called_within_step": False,
        "_last_lr": [rates[-1]],
    }
    optim = optimizer.state_dict()
    return checkpoint(model, epoch=num_epochs, optimizer=optim, scheduler=scheduler, val_result=np.float64(71.5))


@ours_only
@pytest.mark.parametrize("num_epochs", [1, 3])
@pytest.mark.parametrize("zipped", [True, False])
def test_upstream_checkpoint_resumes(num_epochs: int, zipped: bool, tmp_path: Path) -> None:
    torch.save(upstream_checkpoint(num_epochs), tmp_path / "model.pth.tar-3", _use_new_zipfile_serialization=zipped)
    (tmp_path / "checkpoint").write_text("model.pth.tar-3\n")
    cfg = get_cfg_default().OPTIM
    options: dict[str, Any] = {"NAME": "sgd", "LR": 1.0, "LR_SCHEDULER": "cosine", "MAX_EPOCH": 6}
    options |= {"WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant", "WARMUP_CONS_LR": 0.01}
    cfg.merge_from_list([x for pair in options.items() for x in pair])
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(model, cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    assert resume_from_checkpoint(str(tmp_path), model, optimizer, scheduler) == num_epochs
    assert follow(optimizer, scheduler, 6 - num_epochs) == pytest.approx(
        [0.01, 1, 0.93301, 0.75, 0.5, 0.25][num_epochs:], abs=1e-5
    )
    assert load_checkpoint(str(tmp_path / "model.pth.tar-3"))["val_result"] == 71.5


@ours_only
def test_few_shot_split_of_coop(images: Path, tmp_path: Path) -> None:
    items = [Datum(str(path), i % 3, 0, "abc"[i % 3]) for i, path in enumerate(sorted(images.iterdir()))]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"shot_{protocol}-seed_1.pkl"
        path.write_bytes(pickle.dumps({"train": items[:6], "val": items[6:]}, protocol))
        loaded = load_pickle(path)
        assert [vars(item) for item in loaded["train"]] == [vars(item) for item in items[:6]]
        assert [type(item) for item in loaded["val"]] == [Datum] * 18


@ours_only
def test_plain_containers_load(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None, True, "x", b"y"], "b": (1, {2, 3}, frozenset({4}), 1j), "c": OrderedDict(z=1)}
    content["d"] = Counter("hello")
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
        assert load_pickle(tmp_path / "a.pkl") == content


class Call:
    """Object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def attacks(marker: Path) -> dict[str, Any]:
    return {
        "system": Call(os.system, f"touch {marker}"),
        "eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "getattr": Call(getattr, Datum, "__init__"),
        "open": Call(io.open, str(marker), "w"),
        "nested": {"train": [Call(os.mkdir, str(marker))]},
        "torch": Call(torch.hub.load, "a/b", "c"),
        "beside a schedule": [torch.optim.lr_scheduler.LambdaLR, Call(os.mkdir, str(marker))],
    }


@ours_only
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("attack", attacks(Path()))
@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy", "bare pickle as checkpoint"])
def test_malicious_files_are_refused(attack: str, kind: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "file"
    content = attacks(marker)[attack]
    if "pickle" in kind:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save({"state_dict": {}, "x": content}, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(UnsafePickleError, match=f"^{re.escape(str(path))} is not loaded: ") as caught:
        (load_pickle if kind == "pickle" else load_checkpoint)(path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@ours_only
def test_attributes_of_allowed_names_are_refused(tmp_path: Path) -> None:
    """Protocol 4 can name attributes of allowed classes."""
    path = tmp_path / "file"
    for name in ("OrderedDict.fromkeys", "OrderedDict.__init__.__globals__"):
        payload = b"\x80\x04\x8c\x0bcollections\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
        path.write_bytes(payload)
        with pytest.raises(UnsafePickleError, match=re.escape(f"collections.{name}")):
            load_pickle(path)


@ours_only
def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("hello")
    with pytest.raises(UnsafePickleError):
        load_pickle(path)
    with pytest.raises(FileNotFoundError):
        load_pickle(tmp_path / "nowhere")
