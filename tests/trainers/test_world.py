"""Several processes give the files, labels, accuracies and weights of one; a fault in one ends all."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import clip.model
import pytest
import torch
from safetensors.torch import load_file

from coft.backbones.visual_tuning import PromptedViT
from coft.core.world import World
from dassl.utils import checkpoints
from tests.conftest import write_shapes
from tests.trainers.conftest import weights
from tests.trainers.runs import Run, call_in, train_until
from tests.worlds import double_precision, in_world, start_processes, wait_for
from trainers import reporting

RELATIVE = 2e-6  # rounding: 0.6e-6 with torch for CPUs, 1.1e-6 with torch for CUDA on the same processor


@pytest.fixture(scope="session")
def odd_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes with 27 training and 12 test images."""
    return write_shapes(tmp_path_factory.mktemp("odd") / "data", per_class=9)


@pytest.fixture
def coft(run: Run, odd_shapes: Path) -> Run:
    """Run CoFT with batches that two and four processes cannot share evenly."""

    def start(out: str, **settings: Any) -> Any:
        usual = {"DATALOADER__TRAIN_X__BATCH_SIZE": 7, "TRAINER__COFT__PHASE2__LR": 1e-5, "TRAIN__EVAL_FREQ": 0}
        return run("CoFT", "vit", out=out, root=odd_shapes, **(usual | settings))

    return start


def outcome_of(trainer: Any) -> dict[str, Any]:
    """Weights, results and first epoch of a run."""
    reached = {key: value.clone() for key, value in weights(trainer).items()}
    return {"weights": reached, "results": trainer.results, "start": trainer.start_epoch}


def read_table(path: Path) -> tuple[list[list[str]], list[list[float]]]:
    """Text and numbers of pseudo_labels.csv."""
    rows = list(csv.reader(path.open()))[1:]
    return [[*row[:2], *row[5:]] for row in rows], [[float(cell) for cell in row[2:5]] for row in rows]


def relative_difference(reached: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], model: str) -> float:
    """Relative difference of all weights of a model."""
    keys = [key for key in expected if key.startswith(model)]
    differences = [float((reached[key].double() - expected[key].double()).norm()) for key in keys]
    norms = [float(expected[key].double().norm()) for key in keys]
    return float(torch.tensor(differences).norm() / torch.tensor(norms).norm())


def kept(tensors: dict[str, torch.Tensor], clean: bool) -> dict[str, torch.Tensor]:
    """Vectors of p_clean, whose fit in 200 steps and temperature amplify rounding; or the other tensors."""
    return {name: value for name, value in tensors.items() if name.endswith("clean") == clean}


def assert_same_outcome(reached: list[dict[str, Any]], expected: dict[str, Any], folder: Path, other: Path) -> None:
    """Compare the outcome and the files of several processes with those of one."""
    first, *others = reached
    for model in ("peer_a", "peer_b"):
        assert relative_difference(first["weights"], expected["weights"], model) <= RELATIVE
    for other_outcome in others:
        assert all(torch.equal(value, first["weights"][key]) for key, value in other_outcome["weights"].items())
        assert other_outcome["results"]["accuracy_test"] == first["results"]["accuracy_test"]
    assert first["results"]["accuracy_test"] == expected["results"]["accuracy_test"]
    (words, numbers), (expected_words, expected_numbers) = (
        read_table(path / "pseudo_labels.csv") for path in (folder, other)
    )
    assert words == expected_words
    torch.testing.assert_close(torch.tensor(numbers), torch.tensor(expected_numbers), rtol=0, atol=1e-5)
    exported, expected_export = (load_file(path / "model" / "model.safetensors") for path in (folder, other))
    assert exported.keys() == expected_export.keys()
    for clean, bound in ((False, RELATIVE), (True, 100 * RELATIVE)):
        assert relative_difference(exported, kept(expected_export, clean), "") <= bound
    expected_files, files = ({path.name for path in path.rglob("*")} for path in (other, folder))
    tensorboard = "events.out"
    assert {n for n in files if not n.startswith(tensorboard)} == {
        n for n in expected_files if not n.startswith(tensorboard)
    }


@pytest.mark.slow
def test_several_processes_give_the_outcome_of_one(coft: Run, tmp_path: Path) -> None:
    """The run is begun by two processes and ended by four."""

    def begin(world: World) -> None:
        train_until(coft("several", train=False), 3)

    expected = in_world(1, lambda world: outcome_of(coft("alone")), tmp_path / "one")[0]
    in_world(2, begin, tmp_path / "two")
    reached = in_world(4, lambda world: outcome_of(coft("several")), tmp_path / "four")
    assert reached[0]["start"] == 3
    assert_same_outcome(reached, expected, tmp_path / "several", tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "most"), [("UPL", 1e-12), ("CoFT", 1e-10)])
def test_in_float64_weights_and_the_model_nearly_agree(
    run: Run, odd_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: str, most: float
) -> None:
    """In fp32, prompts and temperatures differ by some 1e-6, more than other weights.

    Adam amplifies the rounding of gradients that would be zero, as of key biases in attention.
    """
    monkeypatch.setattr(clip.model.LayerNorm, "forward", torch.nn.LayerNorm.forward)  # CLIP's computes in fp32
    for encoder in (clip.model.VisionTransformer, PromptedViT):
        monkeypatch.setattr(encoder, "forward", partialmethod(in_double, encoder.forward))
    monkeypatch.setattr(reporting, "write_report", lambda folder: None)  # it computes in fp32

    def whole(world: World) -> dict[str, Any]:
        out = f"out{world.size}"
        return outcome_of(run(trainer, "vit", out=out, root=odd_shapes, DATALOADER__TRAIN_X__BATCH_SIZE=5))

    with double_precision():
        expected, reached = (in_world(size, whole, tmp_path / f"{size}")[0] for size in (1, 2))
    exported, expected_export = (load_file(tmp_path / f"out{n}" / "model" / "model.safetensors") for n in (2, 1))
    for tensors, others in ((expected["weights"], reached["weights"]), (expected_export, exported)):
        assert {value.dtype for value in tensors.values() if value.is_floating_point()} == {torch.float64}
        for key, value in tensors.items():
            assert (others[key] - value).double().norm() <= most * value.double().norm(), key


def in_double(encoder: torch.nn.Module, forward: Callable[..., torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Encode images in fp64."""
    return forward(encoder, images.double())


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_a_step(trainer: Any) -> None:
    call_in(trainer, 3, kill)


def kill_while_saving(trainer: Any) -> None:
    save = checkpoints.torch.save

    def saved(state: Any, file: Any) -> None:
        if trainer.epoch == 3:
            file.write(b"half a checkpoint")
            kill()
        save(state, file)

    checkpoints.torch.save = saved  # in a process that ends with the test


def make_loss_nan(trainer: Any) -> None:
    loss = trainer.method.loss
    trainer.method.loss = lambda *args: {
        key: term._replace(total=term.total * torch.nan) for key, term in loss(*args).items()
    }


# fault: how to cause it, on which rank, epochs completed before, part of the error line
FAULTS: dict[str, tuple[Callable[[Any], None], int, int, str]] = {
    "in a step": (kill_in_a_step, 1, 3, "rank 0 of 2 has lost another process"),
    "while saving": (kill_while_saving, 0, 3, "rank 1 of 2 has lost another process"),
    "no number": (make_loss_nan, 1, 0, "of 2: peer_a: the loss is nan on rank 1 in epoch 1"),
}


@pytest.fixture(scope="session")
def _whole() -> dict[str, Any]:
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_all_processes_and_the_run_resumes(
    coft: Run, fault: str, _whole: dict[str, Any], tmp_path: Path
) -> None:
    cause, rank, done, line = FAULTS[fault]

    def faulty(world: World) -> None:
        trainer = coft("several", train=False)
        if world.rank == rank:
            cause(trainer)
        trainer.train()

    def whole(world: World) -> dict[str, Any]:
        return outcome_of(coft("whole"))

    codes, seconds = wait_for(start_processes(2, faulty, tmp_path / "faulty"), limit=60)
    assert 0 not in codes and seconds < 60
    lines = "".join((tmp_path / "faulty" / f"output-{rank}").read_text() for rank in range(2)).splitlines()
    errors = [text for text in lines if text.startswith("error: ")]
    assert len(errors) == 1 and line in errors[0]
    if not done:
        return  # no checkpoint to resume
    if not _whole:
        _whole.update(in_world(2, whole, tmp_path / "whole")[0])
    reached = in_world(2, lambda world: outcome_of(coft("several")), tmp_path / "on")[0]
    assert reached["start"] == done
    assert reached["weights"].keys() == _whole["weights"].keys()
    assert all(torch.equal(value, _whole["weights"][key]) for key, value in reached["weights"].items())
    assert reached["results"]["accuracy_test"] == _whole["results"]["accuracy_test"]
