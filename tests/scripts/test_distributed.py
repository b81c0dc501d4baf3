"""What torchrun is given, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train
from coft.core.errors import UserError
from coft.core.world import SINGLE_PROCESS, World
from scripts.distributed import launch_config
from tests.worlds import in_world


def test_several_machines_meet_at_an_endpoint() -> None:
    config = launch_config(8, 2, "node1:29500")
    assert (config.nproc_per_node, config.min_nodes, config.max_nodes, config.max_restarts) == (8, 2, 2, 0)
    assert config.rdzv_endpoint == "node1:29500"


@pytest.mark.parametrize(
    ("gpus", "machines", "flag"),
    [(0, 1, "--gpus"), (99_999, 1, "--gpus"), (2, 2, "--rdzv-endpoint"), (2, 0, "--nnodes")],
)
def test_what_cannot_be_is_refused(gpus: int, machines: int, flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        launch_config(gpus, machines, "")


def test_upstream_s_dassl_is_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "dassl_in_use", lambda: "dassl 0.6.3")
    train.agree(None, SINGLE_PROCESS)
    with pytest.raises(UserError, match="several processes need the dassl of compat"):
        train.agree(None, World(0, 2))


def test_processes_that_differ_are_refused(configure: Callable[..., Any], tmp_path: Path) -> None:
    def differing(world: World) -> str:
        cfg = configure("CoFT", out="same", TRAIN__MICRO_BATCH=world.rank)
        with pytest.raises(UserError) as caught:
            train.agree(cfg, world)
        return str(caught.value)

    for said in in_world(2, differing, tmp_path / "two"):
        assert "TRAIN.MICRO_BATCH is 0 on rank 0 and 1 on rank 1; start all of them with the same command" in said
