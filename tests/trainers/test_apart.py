"""What is said where two peers cannot be put on two GPUs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from coft.method.world import ALONE, World
from coft.runtime.errors import UserError
from scripts.launch import parse, train_arguments
from trainers.building import second_device

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ("CoFT", "TRAIN.PEERS_APART needs two GPUs, and this run has 0; leave it out"),
        ("UPL", "TRAIN.PEERS_APART: UPL has no two peers; leave it out"),
    ],
)
def test_a_run_that_cannot_have_it_says_why(trainer: str, message: str, run: Run) -> None:
    with pytest.raises(UserError, match=message):
        run(trainer, train=False, TRAIN__PEERS_APART=True)


def test_a_run_with_peers_apart_is_that_of_one_device(run: Run, trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.building.second_device", lambda trainer: torch.device("cpu"))
    apart, plain = run("CoFT", TRAIN__PEERS_APART=True), trained("CoFT")
    assert apart.runtime.apart is not None
    for name, peer in plain.method.peers.items():
        own = apart.method.peers[name].state_dict()
        different = [
            key for key, value in peer.state_dict().items() if torch.is_tensor(value) and not value.equal(own[key])
        ]
        assert not different


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_the_second_peer_is_on_the_second_gpu(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    device = torch.device("cuda" if gpus else "cpu")
    trainer = SimpleNamespace(two_peers=True, world=ALONE, device=device)
    if gpus == 2:
        assert second_device(trainer) == torch.device("cuda:1")
        trainer.world = World(1, 2)
        with pytest.raises(UserError, match="is for one process"):
            second_device(trainer)
    else:
        with pytest.raises(UserError, match=f"needs two GPUs, and this run has {gpus}"):
            second_device(trainer)


def test_a_flag_asks_for_it() -> None:
    for words, asked in ((["digits"], False), (["digits", "--peers-apart"], True)):
        arguments = train_arguments("CoFT", parse("CoFT", words))
        assert ("TRAIN.PEERS_APART" in arguments) is asked
