"""Trainer: construction, splits, loops, printed lines, the progress bar."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
from dassl.engine.trainer import SimpleTrainer
from toys import NO_TEST, Make, ToyX, make_cfg, ours_only, upstream_fault


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
    with pytest.raises(ValueError):
        build_trainer(make_cfg(images, tmp_path, trainer="ToyY"))


def test_trainer_without_registered_model_can_test(images: Path, tmp_path: Path) -> None:
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


LINE = re.compile(
    r"epoch \[(\d+)/2\] batch \[(\d+)/3\] time \d+\.\d{3} \(\d+\.\d{3}\) data \d+\.\d{3} \(\d+\.\d{3}\) "
    r"loss_first (\d+\.\d{4}) \((\d+\.\d{4})\) loss_second \d+\.\d{4} \(\d+\.\d{4}\) acc \d+\.\d{4} \(\d+\.\d{4}\) "
    r"lr (\d\.\d{4}e[+-]\d\d) eta \d+:\d\d:\d\d"
)


def printed_steps(printed: str) -> list[re.Match[str]]:
    matches = [LINE.fullmatch(line) for line in printed.splitlines() if line.startswith("epoch [")]
    assert all(matches)
    return [match for match in matches if match]


def test_printed_lines_of_training(make_trainer: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(*NO_TEST).train()
    printed = capsys.readouterr().out
    steps = printed_steps(printed)
    assert [(step[1], step[2]) for step in steps] == [(e, b) for e in "12" for b in "123"]
    losses = [float(step[3]) for step in steps[:3]]
    assert float(steps[2][4]) == pytest.approx(sum(losses) / 3, abs=2e-4)
    assert re.search(r"Finish training\nElapsed: 0:00:\d\d\n$", printed)


@upstream_fault("prints the rate of the next epoch")
def test_printed_rate_is_the_rate_in_use(make_trainer: Make, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(*NO_TEST)
    scalars: list[Any] = []
    trainer.write_scalar = lambda tag, value, step=None: scalars.append((tag, value, step))
    trainer.train()
    assert trainer.used_lrs == [0.01] * 3 + [0.005] * 3
    assert [float(step[5]) for step in printed_steps(capsys.readouterr().out)] == trainer.used_lrs
    rates = [(step, value) for tag, value, step in scalars if tag == "train/lr"]
    assert rates == list(enumerate(trainer.used_lrs))


def test_scalars_and_final_test(make_trainer: Make, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer()
    scalars: list[Any] = []
    trainer.write_scalar = lambda tag, value, step=None: scalars.append((tag, step))
    trainer.train()
    printed = capsys.readouterr().out
    assert "Finish training\nDeploy the last-epoch model\nEvaluate on the *test* set\n=> result\n" in printed
    assert [step for tag, step in scalars if tag == "train/loss_first"] == list(range(6))
    assert [(tag, step) for tag, step in scalars if tag.startswith("test/")] == [
        (f"test/{name}", 1) for name in ("accuracy", "error_rate", "macro_f1")
    ]


@pytest.mark.parametrize(("frequency", "expected"), [(2, "2"), (4, "123")])
def test_frequency_of_printed_lines(
    frequency: int, expected: str, make_trainer: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer("TRAIN.PRINT_FREQ", frequency, "OPTIM.MAX_EPOCH", 2, *NO_TEST).train()
    assert [step[2] for step in printed_steps(capsys.readouterr().out)] == list(expected * 2)


def test_forward_backward_may_report_nothing(make_trainer: Make) -> None:
    trainer = make_trainer(*NO_TEST)
    trainer.forward_backward = lambda batch: None
    trainer.train()
    assert (trainer.epoch, trainer.batch_idx, trainer.num_batches) == (1, 2, 3)


def test_loader_can_be_replaced_before_an_epoch(make_trainer: Make) -> None:
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


@pytest.mark.parametrize(("count", "expected"), [("train_x", 3), ("train_u", 4), ("smaller_one", 3)])
def test_labelled_and_unlabelled_batches(count: str, expected: int, make_trainer: Make) -> None:
    options = ("DATALOADER.TRAIN_U.SAME_AS_X", False, "DATALOADER.TRAIN_U.BATCH_SIZE", 2)
    trainer = make_trainer("TRAIN.COUNT_ITER", count, *options, *NO_TEST, trainer="ToyXU")
    trainer.train()
    assert trainer.pairs == [(8, 2)] * expected


@ours_only
@pytest.mark.parametrize("forced", ["1", "0", ""])
def test_progress_bar_on_standard_error(
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
def test_progress_bar_does_not_break_lines_of_plugins(
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
