"""Runs of several processes: files, labels, accuracies and weights are those of one; faults end all of them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.method.world import World
from tests.conftest import write_shapes
from tests.trainers.conftest import weights
from tests.trainers.test_resume import stop_in
from tests.worlds import in_world

RELATIVE = 1e-6
Run = Callable[..., Any]


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An odd number of images, 27, and 12 for the test."""
    return write_shapes(tmp_path_factory.mktemp("odd") / "data", per_class=9)


@pytest.fixture
def coft(run: Run, odd: Path) -> Run:
    """CoFT in a folder, with batches that two and four processes cannot share evenly."""

    def start(out: str, **settings: Any) -> Any:
        usual = {"DATALOADER__TRAIN_X__BATCH_SIZE": 7, "TRAINER__COFT__PHASE2__LR": 1e-5, "TRAIN__EVAL_FREQ": 0}
        return run("CoFT", "vit", out=out, root=odd, **(usual | settings))

    return start


def described(trainer: Any) -> dict[str, Any]:
    """What a run has come to."""
    return {"weights": weights(trainer), "results": trainer.results, "start": trainer.start_epoch}


def table(path: Path) -> tuple[list[list[str]], list[list[float]]]:
    """Words and numbers of a table."""
    rows = list(csv.reader(path.open()))[1:]
    return [[*row[:2], *row[5:]] for row in rows], [[float(cell) for cell in row[2:5]] for row in rows]


def apart(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], model: str) -> float:
    """Relative difference of all weights of a model."""
    keys = [key for key in wanted if key.startswith(model)]
    differences = [float((found[key].double() - wanted[key].double()).norm()) for key in keys]
    norms = [float(wanted[key].double().norm()) for key in keys]
    return float(torch.tensor(differences).norm() / torch.tensor(norms).norm())


class Stopped(Exception):
    """What ends a run in the middle of an epoch."""


@pytest.mark.slow
def test_a_run_begun_by_two_processes_and_ended_by_four_is_that_of_one(coft: Run, tmp_path: Path) -> None:
    def begin(world: World) -> None:
        trainer = coft("several", train=False)

        def stop() -> None:
            raise Stopped

        stop_in(trainer, 3, stop)
        with pytest.raises(Stopped):
            trainer.train()

    wanted = in_world(1, lambda world: described(coft("alone")), tmp_path / "one")[0]
    in_world(2, begin, tmp_path / "two")
    first, *others = in_world(4, lambda world: described(coft("several")), tmp_path / "four")
    assert first["start"] == 3
    for model in ("peer_a", "peer_b"):
        assert apart(first["weights"], wanted["weights"], model) <= RELATIVE
    for other in others:
        assert all(torch.equal(value, first["weights"][key]) for key, value in other["weights"].items())
        assert other["results"]["accuracy_test"] == first["results"]["accuracy_test"]
    assert first["results"]["accuracy_test"] == wanted["results"]["accuracy_test"]
    (words, numbers), (known, wanted_numbers) = (
        table(tmp_path / out / "pseudo_labels.csv") for out in ("several", "alone")
    )
    assert words == known
    torch.testing.assert_close(torch.tensor(numbers), torch.tensor(wanted_numbers), rtol=0, atol=3e-6)
    one, many = ({path.name for path in (tmp_path / out).rglob("*")} for out in ("alone", "several"))
    tensorboard = "events.out"
    assert {n for n in many if not n.startswith(tensorboard)} == {n for n in one if not n.startswith(tensorboard)}


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["UPL", "CoOp"])
def test_prompts_are_those_of_one_process(run: Run, odd: Path, trainer: str, tmp_path: Path) -> None:
    def whole(world: World) -> dict[str, Any]:
        return described(run(trainer, "vit", out=f"out{world.size}", root=odd, DATALOADER__TRAIN_X__BATCH_SIZE=5))

    wanted, found = (in_world(size, whole, tmp_path / f"{size}")[0] for size in (1, 2))
    for key, value in wanted["weights"].items():
        assert (found["weights"][key] - value).norm() <= 1e-5 * value.norm()  # prompts of a random CLIP
    assert found["results"] == wanted["results"]
