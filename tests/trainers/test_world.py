"""Runs of several processes: files, labels, accuracies and weights are those of one; faults end all of them."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip.model
import pytest
import torch
from safetensors.torch import load_file

from coft.core.world import World
from dassl.utils import checkpoints
from tests.conftest import write_shapes
from tests.trainers.conftest import weights
from tests.trainers.runs import stop_in
from tests.worlds import double_precision, end, in_world, start

RELATIVE = 2e-6  # what rounding leaves: 0.6e-6 with torch for CPUs, 1.1e-6 with that for CUDA on the same processor
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
    reached = {key: value.clone() for key, value in weights(trainer).items()}
    return {"weights": reached, "results": trainer.results, "start": trainer.start_epoch}


def table(path: Path) -> tuple[list[list[str]], list[list[float]]]:
    """Words and numbers of a table."""
    rows = list(csv.reader(path.open()))[1:]
    return [[*row[:2], *row[5:]] for row in rows], [[float(cell) for cell in row[2:5]] for row in rows]


def apart(reached: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], model: str) -> float:
    """Relative difference of all weights of a model."""
    keys = [key for key in wanted if key.startswith(model)]
    differences = [float((reached[key].double() - wanted[key].double()).norm()) for key in keys]
    norms = [float(wanted[key].double().norm()) for key in keys]
    return float(torch.tensor(differences).norm() / torch.tensor(norms).norm())


class Stopped(Exception):
    """What ends a run in the middle of an epoch."""


def assert_ends_as(reached: list[dict[str, Any]], wanted: dict[str, Any], folder: Path, other: Path) -> None:
    """What several processes came to, and wrote, is what one did."""
    first, *others = reached
    for model in ("peer_a", "peer_b"):
        assert apart(first["weights"], wanted["weights"], model) <= RELATIVE
    for each in others:
        assert all(torch.equal(value, first["weights"][key]) for key, value in each["weights"].items())
        assert each["results"]["accuracy_test"] == first["results"]["accuracy_test"]
    assert first["results"]["accuracy_test"] == wanted["results"]["accuracy_test"]
    (words, numbers), (wanted_words, wanted_numbers) = (table(path / "pseudo_labels.csv") for path in (folder, other))
    assert words == wanted_words
    torch.testing.assert_close(torch.tensor(numbers), torch.tensor(wanted_numbers), rtol=0, atol=5e-6)
    exported, known_export = (load_file(path / "model" / "model.safetensors") for path in (folder, other))
    assert exported.keys() == known_export.keys()
    assert apart(exported, known_export, "") <= RELATIVE
    one, many = ({path.name for path in path.rglob("*")} for path in (other, folder))
    tensorboard = "events.out"
    assert {n for n in many if not n.startswith(tensorboard)} == {n for n in one if not n.startswith(tensorboard)}


@pytest.mark.slow
def test_runs_of_several_processes_end_as_that_of_one(coft: Run, tmp_path: Path) -> None:
    """Begun by two and ended by four, and by two that have a part of each weight: files and exports included."""

    def begin(world: World) -> None:
        trainer = coft("several", train=False)

        def stop() -> None:
            raise Stopped

        stop_in(trainer, 3, stop)
        with pytest.raises(Stopped):
            trainer.train()

    wanted = in_world(1, lambda world: described(coft("alone")), tmp_path / "one")[0]
    in_world(2, begin, tmp_path / "two")
    reached = in_world(4, lambda world: described(coft("several")), tmp_path / "four")
    assert reached[0]["start"] == 3
    assert_ends_as(reached, wanted, tmp_path / "several", tmp_path / "alone")


@pytest.mark.slow
def test_what_differs_is_rounding(run: Run, odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of two processes differ by some 1e-6 in fp32: more than other weights."""
    monkeypatch.setattr(clip.model.LayerNorm, "forward", torch.nn.LayerNorm.forward)  # CLIP's computes in fp32
    encode = clip.model.VisionTransformer.forward
    monkeypatch.setattr(clip.model.VisionTransformer, "forward", lambda self, x: encode(self, x.double()))

    def whole(world: World) -> dict[str, Any]:
        return described(run("UPL", "vit", out=f"out{world.size}", root=odd, DATALOADER__TRAIN_X__BATCH_SIZE=5))

    with double_precision():
        wanted, reached = (in_world(size, whole, tmp_path / f"{size}")[0] for size in (1, 2))
    assert all(value.dtype is torch.float64 for value in wanted["weights"].values())
    for key, value in wanted["weights"].items():
        assert (reached["weights"][key] - value).norm() <= 1e-12 * value.norm(), key


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_step(trainer: Any) -> None:
    stop_in(trainer, 3, kill)


def in_labelling(trainer: Any) -> None:
    encoders = trainer.method.teacher_encoders
    trainer.method.teacher_encoders = lambda: kill() if trainer.epoch == 2 else encoders()


def while_saving(trainer: Any) -> None:
    save = checkpoints.torch.save

    def saved(state: Any, file: Any) -> None:
        if trainer.epoch == 3:
            file.write(b"half a checkpoint")
            kill()
        save(state, file)

    checkpoints.torch.save = saved  # in a process that ends with the test


def no_number(trainer: Any) -> None:
    loss = trainer.method.loss
    trainer.method.loss = lambda *args: {
        key: term._replace(total=term.total * torch.nan) for key, term in loss(*args).items()
    }


FAULTS: dict[
    str, tuple[Callable[[Any], None], int, int, str]
] = {  # what, on which rank, epochs that are done, the line
    "in a step": (in_a_step, 1, 3, "rank 1 of 2 (process "),
    "in labelling": (in_labelling, 1, 2, "rank 1 of 2 (process "),
    "while saving": (while_saving, 0, 3, "rank 0 of 2 (process "),
    "no number": (no_number, 1, 0, "of 2: peer_a: the loss is nan on rank 1 in epoch 1"),
}


@pytest.fixture(scope="session")
def _whole() -> dict[str, Any]:
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_all_and_the_run_goes_on(coft: Run, fault: str, _whole: dict[str, Any], tmp_path: Path) -> None:
    happens, where, done, line = FAULTS[fault]

    def faulty(world: World) -> None:
        trainer = coft("several", train=False)
        if world.rank == where:
            happens(trainer)
        trainer.train()

    def whole(world: World) -> dict[str, Any]:
        return described(coft("whole"))

    codes, seconds = end(start(2, faulty, tmp_path / "faulty"), limit=60)
    assert 0 not in codes and seconds < 60
    lines = "".join((tmp_path / "faulty" / f"said-{rank}").read_text() for rank in range(2)).splitlines()
    errors = [text for text in lines if text.startswith("error: ")]
    assert len(errors) == 1 and line in errors[0]
    if not done:
        return  # the run begins anew
    if not _whole:
        _whole.update(in_world(2, whole, tmp_path / "whole")[0])
    reached = in_world(2, lambda world: described(coft("several")), tmp_path / "on")[0]
    assert reached["start"] == done
    assert reached["weights"].keys() == _whole["weights"].keys()
    assert all(torch.equal(value, _whole["weights"][key]) for key, value in reached["weights"].items())
    assert reached["results"]["accuracy_test"] == _whole["results"]["accuracy_test"]
