"""Trainers: registration, steps, the loop, its printed lines and its files."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
from dassl.engine.trainer import SimpleTrainer, SummaryWriter, TrainerBase
from dassl.utils import load_checkpoint

from .toys import Net, ToyX, make_cfg, ours_only, upstream_fault

Make = Callable[..., Any]
NO_TEST = ("TEST.NO_TEST", True)

# ---- TrainerBase


def base(**optims: Any) -> TrainerBase:
    trainer = TrainerBase()
    for name, optim in optims.items():
        trainer.register_model(name, nn.Linear(2, 1), optim)
    return trainer


def test_registration() -> None:
    trainer = base(a=None, b=None)
    assert trainer.get_model_names() == ["a", "b"]
    assert trainer.get_model_names("b") == ["b"]
    assert trainer.get_model_names(["b", "a"]) == ["b", "a"]
    assert list(trainer._models) == list(trainer._optims) == list(trainer._scheds) == ["a", "b"]
    with pytest.raises(AssertionError):
        trainer.register_model("a", nn.Linear(1, 1))
    with pytest.raises(AssertionError):
        trainer.get_model_names("c")

    class Hasty(TrainerBase):
        def __init__(self) -> None:
            self.register_model("model", nn.Linear(1, 1))

    with pytest.raises(AttributeError):
        Hasty()


def test_modes() -> None:
    trainer = base(a=None, b=None)
    trainer.set_model_mode("eval", ["a"])
    assert [model.training for model in trainer._models.values()] == [False, True]
    trainer.set_model_mode("test")
    assert not any(model.training for model in trainer._models.values())
    trainer.set_model_mode("train")
    assert all(model.training for model in trainer._models.values())
    with pytest.raises(KeyError):
        trainer.set_model_mode("play")


def test_steps() -> None:
    trainer = TrainerBase()
    models = {}
    for name in ("a", "b"):
        models[name] = nn.Linear(2, 1, bias=False)
        optim = torch.optim.SGD(models[name].parameters(), lr=1.0)
        trainer.register_model(name, models[name], optim, torch.optim.lr_scheduler.StepLR(optim, 1, 0.5))
    before = {name: model.weight.clone() for name, model in models.items()}
    loss = sum(model(torch.ones(1, 2)).sum() for model in models.values())
    trainer.model_backward_and_update(loss, "a")
    assert torch.equal(models["a"].weight, before["a"] - 1)
    assert torch.equal(models["b"].weight, before["b"])
    trainer.model_zero_grad()
    assert models["b"].weight.grad is None or not models["b"].weight.grad.any()
    trainer.model_update("b")
    trainer.update_lr("b")
    assert [optim.param_groups[0]["lr"] for optim in trainer._optims.values()] == [1.0, 0.5]
    trainer.update_lr()
    assert [optim.param_groups[0]["lr"] for optim in trainer._optims.values()] == [0.5, 0.25]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_loss_that_is_no_number(value: str) -> None:
    with pytest.raises(FloatingPointError, match="Loss is infinite or NaN!"):
        base(a=None).model_backward_and_update(torch.tensor(float(value), requires_grad=True))


def test_scalars_without_a_writer() -> None:
    trainer = base()
    trainer.write_scalar("x", 1.0, 0)
    trainer.close_writer()


def test_order_of_hooks() -> None:
    calls: list[Any] = []

    class Hooks(TrainerBase):
        def before_train(self) -> None:
            calls.append("before_train")
            self.start_epoch += 1

        def after_train(self) -> None:
            calls.append("after_train")

        def before_epoch(self) -> None:
            calls.append("before_epoch")

        def run_epoch(self) -> None:
            calls.append(self.epoch)

        def after_epoch(self) -> None:
            calls.append("after_epoch")

    Hooks().train(1, 4)
    epochs = [call for epoch in (2, 3) for call in ("before_epoch", epoch, "after_epoch")]
    assert calls == ["before_train", *epochs, "after_train"]


def test_parts_that_a_trainer_must_fill_in() -> None:
    trainer = base()
    with pytest.raises(NotImplementedError):
        trainer.run_epoch()
    with pytest.raises(NotImplementedError):
        trainer.test()
    with pytest.raises(NotImplementedError):
        trainer.forward_backward({})
    with pytest.raises(NotImplementedError):
        trainer.parse_batch_test({})
    with pytest.raises(NotImplementedError):
        trainer.model_inference(torch.zeros(1))


# ---- SimpleTrainer


def test_order_of_construction(images: Path, tmp_path: Path) -> None:
    calls: list[str] = []

    class Order(SimpleTrainer):
        def check_cfg(self, cfg: Any) -> None:
            calls.append(f"check_cfg, device {hasattr(self, 'device')}")

        def build_data_loader(self) -> None:
            calls.append(f"data, max_epoch {self.max_epoch}, start {self.start_epoch}, device {self.device}")
            super().build_data_loader()

        def build_model(self) -> None:
            calls.append(f"model, {self.num_classes} classes, evaluator {hasattr(self, 'evaluator')}")

    trainer = Order(make_cfg(images, tmp_path, "USE_CUDA", False))
    assert calls == [
        "check_cfg, device False",
        "data, max_epoch 2, start 0, device cpu",
        "model, 3 classes, evaluator False",
    ]
    assert trainer.best_result == -float("inf")
    assert trainer.output_dir == str(tmp_path)
    assert trainer.dm.dataset.classnames == ["red", "green", "blue"]


def test_trainer_by_name(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(build_trainer(make_cfg(images, tmp_path)), ToyX)
    assert capsys.readouterr().out.startswith("Loading trainer: ToyX\nLoading dataset: Tints\n")
    with pytest.raises(ValueError, match="ToyX"):
        build_trainer(make_cfg(images, tmp_path, trainer="ToyY"))


def test_trainer_without_a_model_can_test(images: Path, tmp_path: Path) -> None:
    @TRAINER_REGISTRY.register(force=True)
    class ZeroShot(TrainerX):
        def build_model(self) -> None:
            self.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))

    trainer = build_trainer(make_cfg(images, tmp_path, trainer="ZeroShot"))
    assert 0 <= trainer.test() <= 100


def test_splits(make_trainer: Make, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer()
    trainer.first.train()
    for split, total in (("val", 6), ("test", 24), (None, 24)):
        capsys.readouterr()
        trainer.test(split=split)
        printed = capsys.readouterr().out
        assert printed.startswith(f"Evaluate on the *{split or 'test'}* set\n=> result\n* total: {total}\n")
    assert not trainer.first.training
    trainer.val_loader = None
    trainer.test(split="val")
    assert "Evaluate on the *test* set" in capsys.readouterr().out


def test_accuracy_is_returned_in_full(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.model_inference = lambda image: torch.eye(3)[torch.zeros(len(image), dtype=torch.long)]
    trainer.test_loader = [{"img": torch.zeros(3, 1), "label": torch.tensor([0, 1, 2])}]
    assert trainer.test() == pytest.approx(100 / 3, abs=1e-12)


# ---- checkpoints


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


def test_best_model_is_kept(make_trainer: Make, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_model_of_an_epoch_is_loaded(make_trainer: Make) -> None:
    trainer = make_trainer(*NO_TEST)
    trainer.train()
    other = make_trainer()
    other.load_model(trainer.output_dir, epoch=2)
    for mine, theirs in zip(trainer.first.parameters(), other.first.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert other.first.seen["steps"] == 6


def test_models_that_are_not_there(make_trainer: Make, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer()
    trainer.load_model("")
    assert "load_model() is skipped" in capsys.readouterr().out
    for epoch, name in ((None, "model-best.pth.tar"), (7, "model.pth.tar-7")):
        with pytest.raises(FileNotFoundError, match=f"No model at .*{name}"):
            trainer.load_model(trainer.output_dir, epoch=epoch)


def test_loading_is_strict(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.save_model(0, trainer.output_dir, val_result=1.0, model_name="model-best.pth.tar")
    trainer._models["first"].more = nn.Linear(1, 1)
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


class OneOptimizer:
    """An optimizer of a plugin's own, of which only what is called exists."""

    def __init__(self, parameters: Any) -> None:
        self.inner = torch.optim.Adam(parameters, lr=0.1)

    @property
    def param_groups(self) -> Any:
        return self.inner.param_groups

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    def step(self) -> None:
        self.inner.step()

    def state_dict(self) -> Any:
        return {"phase": 2, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: Any) -> None:
        self.phase = state["phase"]
        self.inner.load_state_dict(state["inner"])


class OneSchedule:
    """A schedule of a plugin's own."""

    def __init__(self, optimizer: OneOptimizer) -> None:
        self.optimizer, self.steps = optimizer, 0

    def step(self) -> None:
        self.steps += 1
        self.optimizer.param_groups[0]["lr"] = 0.1 / (1 + self.steps)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> Any:
        return {"steps": self.steps}

    def load_state_dict(self, state: Any) -> None:
        self.steps = state["steps"]


def test_optimizers_and_schedules_may_be_anything_of_the_kind(make_trainer: Make) -> None:
    def build() -> Any:
        trainer = make_trainer("OPTIM.MAX_EPOCH", 2, *NO_TEST)
        for name in ("first", "second"):
            trainer._optims[name] = OneOptimizer(trainer._models[name].parameters())
            trainer._scheds[name] = OneSchedule(trainer._optims[name])
        return trainer

    first = build()
    first.train()
    assert first.used_lrs == [0.1] * 3 + [0.05] * 3
    second = build()
    assert second.resume_model_if_exist(first.output_dir) == 2
    assert second._scheds["first"].steps == 2
    assert second._optims["second"].phase == 2
    assert second.get_current_lr() == first.get_current_lr()


# ---- TrainerX and TrainerXU

LINE = re.compile(
    r"epoch \[(\d+)/2\] batch \[(\d+)/3\] time \d+\.\d{3} \(\d+\.\d{3}\) data \d+\.\d{3} \(\d+\.\d{3}\) "
    r"loss_first (\d+\.\d{4}) \((\d+\.\d{4})\) loss_second \d+\.\d{4} \(\d+\.\d{4}\) acc \d+\.\d{4} \(\d+\.\d{4}\) "
    r"lr (\d\.\d{4}e[+-]\d\d) eta \d+:\d\d:\d\d"
)


def printed_steps(printed: str) -> list[re.Match[str]]:
    found = [LINE.fullmatch(line) for line in printed.splitlines() if line.startswith("epoch [")]
    assert all(found)
    return [match for match in found if match]


def test_lines_of_training(make_trainer: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(*NO_TEST).train()
    printed = capsys.readouterr().out
    steps = printed_steps(printed)
    assert [(step[1], step[2]) for step in steps] == [(e, b) for e in "12" for b in "123"]
    losses = [float(step[3]) for step in steps[:3]]
    assert float(steps[2][4]) == pytest.approx(sum(losses) / 3, abs=2e-4)
    assert re.search(r"Finish training\nElapsed: 0:00:\d\d\n$", printed)


@upstream_fault("prints the rate of the next epoch")
def test_rate_that_is_printed_is_the_one_that_was_used(make_trainer: Make, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(*NO_TEST)
    scalars: list[Any] = []
    trainer.write_scalar = lambda tag, value, step=None: scalars.append((tag, value, step))
    trainer.train()
    assert trainer.used_lrs == [0.01] * 3 + [0.005] * 3
    assert [float(step[5]) for step in printed_steps(capsys.readouterr().out)] == trainer.used_lrs
    rates = [(step, value) for tag, value, step in scalars if tag == "train/lr"]
    assert rates == list(enumerate(trainer.used_lrs))


def test_scalars(make_trainer: Make) -> None:
    trainer = make_trainer()
    scalars: list[Any] = []
    trainer.write_scalar = lambda tag, value, step=None: scalars.append((tag, step))
    trainer.train()
    assert [step for tag, step in scalars if tag == "train/loss_first"] == list(range(6))
    assert [(tag, step) for tag, step in scalars if tag.startswith("test/")] == [
        (f"test/{name}", 1) for name in ("accuracy", "error_rate", "macro_f1")
    ]


@pytest.mark.parametrize(("frequency", "expected"), [(1, "123"), (2, "2"), (3, "3"), (4, "123")])
def test_how_often_lines_are_printed(
    frequency: int, expected: str, make_trainer: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer("TRAIN.PRINT_FREQ", frequency, "OPTIM.MAX_EPOCH", 2, *NO_TEST).train()
    assert [step[2] for step in printed_steps(capsys.readouterr().out)] == list(expected * 2)


def test_end_of_training(make_trainer: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer().train()
    printed = capsys.readouterr().out
    assert "Finish training\nDeploy the last-epoch model\nEvaluate on the *test* set\n=> result\n" in printed


def test_forward_backward_may_report_nothing(make_trainer: Make) -> None:
    trainer = make_trainer(*NO_TEST)
    trainer.forward_backward = lambda batch: None
    trainer.train()
    assert (trainer.epoch, trainer.batch_idx, trainer.num_batches) == (1, 2, 3)


def test_loader_may_be_replaced_before_an_epoch(make_trainer: Make) -> None:
    trainer = make_trainer(*NO_TEST)
    batches = list(trainer.train_loader_x)
    counts = []

    def before_epoch() -> None:
        trainer.train_loader_x = batches[: trainer.epoch + 1]

    def forward_backward(batch: Any) -> None:
        counts.append((trainer.epoch, trainer.batch_idx, trainer.num_batches))

    trainer.before_epoch, trainer.forward_backward = before_epoch, forward_backward
    trainer.train()
    assert counts == [(0, 0, 1), (1, 0, 2), (1, 1, 2)]


def test_domains_are_part_of_a_batch(make_trainer: Make) -> None:
    trainer = make_trainer()
    image, label, domain = TrainerX.parse_batch_train(trainer, next(iter(trainer.train_loader_x)))
    assert (image.shape, label.shape, domain.shape) == ((8, 3, 16, 16), (8,), (8,))


@pytest.mark.parametrize(("count", "expected"), [("train_x", 3), ("train_u", 4), ("smaller_one", 3)])
def test_labelled_and_unlabelled_batches(count: str, expected: int, make_trainer: Make) -> None:
    own = ("DATALOADER.TRAIN_U.SAME_AS_X", False, "DATALOADER.TRAIN_U.BATCH_SIZE", 2)
    trainer = make_trainer("TRAIN.COUNT_ITER", count, *own, *NO_TEST, trainer="ToyXU")
    trainer.train()
    assert trainer.pairs == [(8, 2)] * expected


def test_unknown_count(make_trainer: Make) -> None:
    with pytest.raises(ValueError):
        make_trainer("TRAIN.COUNT_ITER", "both", *NO_TEST, trainer="ToyXU").train()


# ---- progress


@ours_only
@pytest.mark.parametrize("forced", ["1", "0", ""])
def test_bar_on_standard_error(
    forced: str, make_trainer: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASSL_PROGRESS", forced)
    make_trainer().train()
    printed = capsys.readouterr()
    assert ("epoch [1/2]:" in printed.err) == (forced == "1")
    assert ("test:" in printed.err) == (forced == "1")
    assert len(printed_steps(printed.out)) == 6
    assert "\r" not in printed.out


@ours_only
def test_lines_of_plugins_stay_whole_beside_the_bar(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASSL_PROGRESS", "1")
    handler = logging.StreamHandler(sys.stdout)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    trainer = make_trainer("TRAIN.PRINT_FREQ", 10, *NO_TEST)

    def forward_backward(batch: Any) -> None:
        print("of a", "plugin")
        logging.getLogger("plugin").warning("of a log")
        print("without end", end="")

    trainer.forward_backward = forward_backward
    trainer.train()
    assert handler.stream is sys.stdout
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("of a plugin") == lines.count("of a log") == 6
    assert sum(line.startswith("without endepoch [") for line in lines) == 6


def test_names_beside_the_trainers() -> None:
    assert SummaryWriter.__name__ == "SummaryWriter"
