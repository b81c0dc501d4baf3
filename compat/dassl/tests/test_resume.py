"""A killed and resumed run is bit-identical to an uninterrupted one."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from dassl.utils import load_checkpoint
from forks import run_afresh, run_forked
from toys import NO_TEST, Make, ours_only, upstream_fault

SCRIPT = Path(__file__).with_name("stoppable.py")
MODELS = ("first", "second")
# Positions where the run is killed, in order, by number of workers: in the first epoch, where nothing is saved; in a
# later one; after the checkpoints of an epoch are written, but before its state.
STOPS = {0: ("0:1", "2:end"), 1: ("1:2", "2:end"), 2: ("1:0", "2:end", "3:1")}


def arguments(root: Path, output: Path, workers: int, stop_at: str = "") -> list[str]:
    """Return the arguments of Python."""
    return [str(SCRIPT), str(root), str(output), str(workers), stop_at]


def assert_same(a: Any, b: Any, where: str) -> None:
    """Check that nested containers and their tensors are equal."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def result_lines(output: str) -> list[str]:
    """Return the printed lines of the final test."""
    return output[output.index("Evaluate on the *test*") : output.index("Elapsed")].splitlines()


@upstream_fault("generators, best result and the schedule of warm-up are not saved")
@pytest.mark.parametrize("workers", STOPS)
def test_killed_run_is_bit_identical(workers: int, images: Path, tmp_path: Path) -> None:
    uninterrupted, stopped = tmp_path / "uninterrupted", tmp_path / "stopped"
    run = run_forked if workers else run_afresh
    reference = run(arguments(images, uninterrupted, workers), tmp_path)
    assert reference.returncode == 0, reference.stdout
    for stop_at in STOPS[workers]:
        killed = run_forked(arguments(images, stopped, workers, stop_at), tmp_path)
        assert killed.returncode == -signal.SIGKILL, killed.stdout
    finished = run_forked(arguments(images, stopped, workers), tmp_path)
    assert finished.returncode == 0, finished.stdout

    files = sorted(str(path.relative_to(uninterrupted)) for path in uninterrupted.glob("*/*.tar*"))
    assert f"{MODELS[0]}/model.pth.tar-4" in files
    assert sorted(str(path.relative_to(stopped)) for path in stopped.glob("*/*.tar*")) == files
    for file in files:
        assert_same(load_checkpoint(str(uninterrupted / file)), load_checkpoint(str(stopped / file)), file)
    for model in MODELS:
        assert (uninterrupted / model / "checkpoint").read_text() == (stopped / model / "checkpoint").read_text()
    assert result_lines(reference.stdout) == result_lines(finished.stdout)


def stop_after(trainer: Any, epochs: int) -> None:
    """Train for some epochs, then raise an exception."""

    class Stop(Exception):
        pass

    original = trainer.before_epoch

    def before_epoch() -> None:
        if trainer.epoch == epochs:
            raise Stop
        original()

    trainer.before_epoch = before_epoch
    with pytest.raises(Stop):
        trainer.train()


@upstream_fault("generators are not saved")
def test_generator_of_a_loader_is_restored(make_trainer: Make, tmp_path: Path) -> None:
    orders: list[Any] = []

    def build(output: str) -> Any:
        trainer = make_trainer("OPTIM.MAX_EPOCH", 4, *NO_TEST, "OUTPUT_DIR", str(tmp_path / output))
        shuffling = DataLoader(trainer.test_loader.dataset, shuffle=True, generator=torch.Generator().manual_seed(1))
        trainer.train_loader_u = shuffling
        trainer.before_epoch = lambda: orders.append([batch["index"].item() for batch in shuffling])
        return trainer

    build("uninterrupted").train()
    uninterrupted = orders[:]
    orders.clear()
    stop_after(build("stopped"), 2)
    del orders[2:]
    build("stopped").train()
    assert orders == uninterrupted
    assert len({tuple(order) for order in orders}) == 4


BEST = ("TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", 3)


@upstream_fault("best_val mode resumes from the best epoch, and forgets how good it was")
def test_resumption_from_the_last_epoch_keeps_the_best_result(make_trainer: Make) -> None:
    first = make_trainer(*BEST)
    first.test = lambda split=None: {0: 50.0, 1: 40.0}[first.epoch]
    stop_after(first, 2)
    second = make_trainer(*BEST)
    second.before_train()
    assert second.start_epoch == 2
    assert second.best_result == 50.0


def test_resumption_from_checkpoints_alone(make_trainer: Make, tmp_path: Path) -> None:
    """Other files may be missing, as in older folders."""
    options = (*NO_TEST, "OPTIM.LR_SCHEDULER", "single_step")
    trainer = make_trainer(*options)
    trainer.before_train()
    trainer.save_model(0, trainer.output_dir)
    again = make_trainer(*options)
    with torch.no_grad():
        again.first.layers[2].weight.zero_()
    assert again.resume_model_if_exist(trainer.output_dir) == 1
    assert torch.equal(again.first.layers[2].weight, trainer.first.layers[2].weight)


@ours_only
def test_checkpoints_restore_the_best_result(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.save_model(0, trainer.output_dir, val_result=70.0, model_name="model-best.pth.tar")
    trainer.save_model(1, trainer.output_dir)
    again = make_trainer()
    assert again.resume_model_if_exist(trainer.output_dir) == 2
    assert again.best_result == 70.0


@ours_only
def test_checkpoints_of_different_epochs_are_refused(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.save_model(1, trainer.output_dir)
    (Path(trainer.output_dir) / "second" / "model.pth.tar-2").unlink()
    del trainer._models["first"]
    trainer.save_model(0, trainer.output_dir)
    with pytest.raises(RuntimeError, match=r"'first': 2.*'second': 1"):
        make_trainer().resume_model_if_exist(trainer.output_dir)


def test_training_starts_without_checkpoints(
    make_trainer: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer()
    trainer.save_model(0, trainer.output_dir)
    for path in (Path(trainer.output_dir) / "second").iterdir():
        path.unlink()
    (Path(trainer.output_dir) / "second").rmdir()
    capsys.readouterr()
    assert make_trainer().resume_model_if_exist(trainer.output_dir) == 0
    assert make_trainer().resume_model_if_exist(str(tmp_path / "nowhere")) == 0
    assert capsys.readouterr().out.count("No checkpoint found, train from scratch\n") == 2


@ours_only
def test_run_started_from_another_folder_resumes_in_its_own(make_trainer: Make, tmp_path: Path) -> None:
    base = make_trainer("TRAIN.CHECKPOINT_FREQ", 1, *NO_TEST, "OUTPUT_DIR", str(tmp_path / "base"))
    stop_after(base, 1)
    options = ("RESUME", str(tmp_path / "base"), "OPTIM.MAX_EPOCH", 4, *NO_TEST)
    first = make_trainer(*options)
    stop_after(first, 3)
    assert first.start_epoch == 1
    second = make_trainer(*options)
    second.before_train()
    assert second.start_epoch == 3


@ours_only
def test_state_of_other_models_is_refused(make_trainer: Make) -> None:
    trainer = make_trainer(*NO_TEST)
    trainer.train()
    other = make_trainer()
    for registered in (other._models, other._optims, other._scheds):
        del registered["second"]
    with pytest.raises(KeyError, match=r"models \['first', 'second'\], not \['first'\]"):
        other.resume_model_if_exist(trainer.output_dir)


@ours_only
def test_finished_run_stores_weights_once(make_trainer: Make) -> None:
    trainer = make_trainer(*NO_TEST)
    stop_after(trainer, 1)
    (state,) = Path(trainer.output_dir).glob("*.tar")
    size_with_weights = state.stat().st_size
    make_trainer(*NO_TEST).train()
    numbered = Path(trainer.output_dir) / "first" / "model.pth.tar-2"
    assert state.stat().st_size < size_with_weights - numbered.stat().st_size
    assert not list(Path(trainer.output_dir).rglob("*.tmp"))
    longer = make_trainer(*NO_TEST, "OPTIM.MAX_EPOCH", 3)
    longer.train()
    assert longer.start_epoch == 2
    assert longer.first.seen["steps"] == 9
