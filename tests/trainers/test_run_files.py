"""The files of a run, and their explanation in docs/howto/report.md."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.backbones.load import fingerprint
from coft.engine.diagnostics import calibration_error
from coft.method import guard
from tests.conftest import write_shapes
from tests.trainers.conftest import OURS
from tests.trainers.runs import Run, read_rows, read_summary

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "report.md"
PEERS = ("peer_a", "peer_b")
TWO_PHASES = ("CoFT", "CoFTPlus", "DeFT")
LABELS_USED = {"CoOp": 6, "Supervised": 36}
ENSEMBLES = dict.fromkeys(("CoOp", "ZeroshotCLIP", "ZeroshotCLIP2", "TrainingFree"), 1)


@pytest.mark.parametrize(("trainer", "backbone"), [("CoFT", "vit"), ("CoFTPlus", "vit"), ("DeFT", "resnet")])
def test_a_run_of_two_peers_writes_all_files(trained: Run, trainer: str, backbone: str) -> None:
    built = trained(trainer, backbone)
    folder, first, epochs = Path(built.output_dir), built.method.phase1_epochs, built.method.epochs
    rows = read_rows(folder / "metrics.csv")
    assert [row["stage"] for row in rows] == ["zero-shot", *["phase1"] * first, *["phase2"] * (epochs - first)]
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(epochs + 1)]
    assert trainer != "CoFT" or (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    results = read_summary(built)["results"]
    assert results["after Phase II"]["accuracy_both"] == pytest.approx(float(rows[-1]["accuracy_both"]))
    assert results["accuracy_test"] == pytest.approx(float(rows[-1]["accuracy_both"]))
    assert any((folder / "tensorboard").iterdir())
    for name in PEERS:
        assert (folder / name / "checkpoint").read_text().strip() == f"model.pth.tar-{epochs}"
    assert not [path for path in folder.rglob("*") if ".tmp" in path.name or "table" in path.name]


@pytest.mark.parametrize("trainer", ["CoFT", "DeFT"])
def test_epoch_0_has_the_accuracy_of_zero_shot_clip(trained: Run, trainer: str) -> None:
    first, *later = read_rows(Path(trained(trainer, "vit").output_dir) / "metrics.csv")
    assert float(first["accuracy_both"]) == pytest.approx(trained("ZeroshotCLIP2", "vit").results["accuracy_test"])
    assert float(first["seconds"]) <= float(later[0]["seconds"]) and "accuracy_peer_a" in later[-1]


def test_no_image_is_tested_before_the_first_epoch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    built = run("CoFT", "vit", train=False)
    monkeypatch.setattr(built.engine, "predict", lambda *args: pytest.fail("an image was predicted"))
    monkeypatch.setattr(built.engine, "predict_each", lambda *args: pytest.fail("an image was predicted"))
    built.before_train()
    assert [row["stage"] for row in read_rows(Path(built.output_dir) / "metrics.csv")] == ["zero-shot"]


@pytest.mark.parametrize("trainer", OURS)
def test_the_summary_records_the_run(trained: Run, trainer: str) -> None:
    built = trained(trainer)
    summary = read_summary(built)
    assert summary["trainer"] == trainer and summary["seed"] == 1 and summary["dataset"] == "Shapes"
    assert f"{trainer} on Shapes" in (Path(built.output_dir) / "report.html").read_text()
    assert summary["versions"]["dassl"] and summary["versions"]["torch"] == importlib.metadata.version("torch")
    assert summary["backbone_fingerprint"] == fingerprint(built.clip_model)
    assert summary["labels_used"] == LABELS_USED.get(trainer, 0)
    assert ("unlabeled" in summary) == built.spec.label_free
    assert summary["ensemble"] == ENSEMBLES.get(trainer, 2)
    assert summary["precision"] == "fp32" and "SEED: 1" in summary["config"]
    assert 0 <= summary["results"]["accuracy_test"] <= 100
    seconds = summary["seconds_by_part"]
    assert sum(seconds.values()) == pytest.approx(summary["seconds"], abs=1.0) and "evaluation" in seconds


@pytest.mark.parametrize("trainer", ["CoFT", "CoFTPlus"])
def test_the_summary_records_that_zero_shot_clip_was_kept(
    run: Run, trained: Run, trainer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MIN_SKILL", 1.0)
    monkeypatch.setattr(guard, "MIN_INFORMATION", 1.0)
    kept = read_summary(run(trainer))
    zero_shot = read_summary(trained("ZeroshotCLIP2"))
    assert kept["kept"] == "zero-shot CLIP" and "kept" not in zero_shot
    assert kept["results"]["accuracy_test"] == zero_shot["results"]["accuracy_test"]


def predicted_classes(built: Any) -> list[str]:
    """Classes of the test images, predicted with the present weights."""
    built.set_model_mode("eval")
    return [built.classnames[c] for batch in built.test_loader for c in built.engine.predict(batch["img"]).argmax(1)]


@pytest.mark.parametrize("trainer", OURS)
def test_predictions_of_test_images_give_the_reported_accuracies(trained: Run, trainer: str) -> None:
    built = trained(trainer)
    folder, test = Path(built.output_dir), built.dm.dataset.test
    rows = read_rows(folder / "test_predictions.csv")
    two_phases = trainer in TWO_PHASES
    assert list(rows[0]) == ["image", "class", *(["phase1"] if two_phases else []), "end", "confidence"]
    assert [(built.cfg.DATASET.ROOT + "/" + row["image"], row["class"]) for row in rows] == [
        (item.impath, item.classname) for item in test
    ]

    def accuracy(stage: str) -> float:
        return 100 * sum(row[stage] == row["class"] for row in rows) / len(rows)

    results = read_summary(built)["results"]
    assert accuracy("end") == pytest.approx(results["accuracy_test"])
    assert [row["end"] for row in rows] == predicted_classes(built)
    confidence = [float(row["confidence"]) for row in rows]
    assert 1 / len(built.classnames) < min(confidence) <= max(confidence) <= 1
    assert results["confidence_test"] == pytest.approx(100 * sum(confidence) / len(rows), abs=1e-3)
    correct = [row["end"] == row["class"] for row in rows]
    error = calibration_error(torch.tensor(confidence), torch.tensor(correct))
    assert results["calibration_error_test"] == pytest.approx(100 * error, abs=1e-2)
    if two_phases:
        metrics = read_rows(folder / "metrics.csv")
        end = next(row for row in reversed(metrics) if row["stage"] == "phase1")
        assert accuracy("phase1") == pytest.approx(float(end["accuracy_both"]), abs=1e-3)
        assert accuracy("phase1") == pytest.approx(results["after Phase I"]["accuracy_both"], abs=1e-3)


@pytest.mark.parametrize("backbone", ["resnet", "vit"])
@pytest.mark.parametrize("trainer", ["CoFT", "CoFTPlus", "DeFT"])
def test_predictions_of_phase_one_are_those_of_its_checkpoint(
    run: Run, trained: Run, trainer: str, backbone: str
) -> None:
    whole = trained(trainer, backbone)
    loaded = run(trainer, backbone, train=False, out="loaded")
    loaded.load_model(whole.output_dir, epoch=whole.method.phase1_epochs)
    rows = read_rows(Path(whole.output_dir) / "test_predictions.csv")
    assert [row["phase1"] for row in rows] == predicted_classes(loaded)


@pytest.mark.parametrize(
    ("trainer", "settings"), [("UPL", {}), ("CoFT", {}), ("Supervised", {"TEST__FINAL_MODEL": "best_val"})]
)
def test_validation_does_not_overwrite_predictions_of_test_images(
    run: Run, tmp_path: Path, trainer: str, settings: dict[str, Any]
) -> None:
    root = write_shapes(tmp_path / "data")
    split = json.loads((root / "split.json").read_text())
    split["val"], split["train"] = split["train"][:7], split["train"][7:]
    (root / "split.json").write_text(json.dumps(split))
    built = run(trainer, root=root, **settings)
    built.test("val")
    assert len(read_rows(Path(built.output_dir) / "test_predictions.csv")) == len(split["test"])


@pytest.mark.parametrize("trainer", ["CoFT", "CoFTPlus"])
def test_the_page_explains_every_column_of_metrics(trained: Run, trainer: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## What a run writes by epoch") :].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    explained = [name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    reported = read_rows(Path(trained(trainer).output_dir) / "metrics.csv")[0]
    assert sorted(reported) == sorted([*explained, "epoch", "stage"])


def test_the_learning_rate_is_that_of_a_trained_model(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream's Dassl reads it from the first registered model, which is the method's state and has none."""
    trainer = trained("CoFT")

    def upstream_lr(self: Any, names: Any = None) -> float:
        return self._optims[self.get_model_names(names)[0]].param_groups[0]["lr"]

    monkeypatch.setattr("dassl.engine.TrainerX.get_current_lr", upstream_lr, raising=False)
    assert trainer.get_current_lr() == trainer._optims["peer_a"].param_groups[0]["lr"]


def test_the_log_can_be_read_by_parse_test_res(run: Run) -> None:
    """parse_test_res.py of CoOp takes the last '* accuracy: x%' after a line 'Finish training'."""
    from dassl.utils import setup_logger

    trainer = run("UPL", train=False)
    setup_logger(trainer.output_dir)
    trainer.train()
    text = (Path(trainer.output_dir) / "log.txt").read_text()
    tail = text[text.index("\nFinish training\n") :]
    reported = re.findall(r"\* accuracy: ([\.\deE+-]+)%", tail)
    assert len(reported) == 1 and float(reported[0]) == pytest.approx(trainer.results["accuracy_test"], abs=0.05)


def test_accuracies_are_counted_for_each_peer_and_both(trained: Run) -> None:
    built = trained("CoFT")
    reported, correct = built.accuracies(), dict.fromkeys((*PEERS, "both"), 0)
    for batch in built.test_loader:
        logits = built.engine.predict_each(batch["img"])
        logits["both"] = built.model_inference(batch["img"])
        for name, values in logits.items():
            correct[name] += int((values.argmax(dim=1) == batch["label"]).sum())
    assert reported == pytest.approx({f"accuracy_{name}": 100 * n / 18 for name, n in correct.items()})


def test_test_images_are_predicted_once(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    built = trained("CoFT")
    accuracies, plain = built.accuracies(), built.engine.predict
    images = list[int]()
    monkeypatch.setattr(built.engine, "predict", lambda batch: images.append(len(batch)) or plain(batch))
    assert built.test() == pytest.approx(accuracies["accuracy_both"])
    assert not images
    probabilities = built.predicted.confidence()
    assert built.test() == pytest.approx(accuracies["accuracy_both"]) and sum(images) == 18
    assert torch.allclose(built.predicted.confidence(), probabilities)


def test_changed_weights_are_tested_again(run: Run) -> None:
    built = run("CoFT")
    built.test()
    before = built.predicted.confidence()
    with torch.no_grad():
        for model in built.method.models.values():
            for weight in model.parameters():
                weight.zero_()
    built.engine.loaded()
    assert built.test() == built.accuracies()["accuracy_both"]
    assert not torch.allclose(built.predicted.confidence(), before)


def test_without_validation_images_accuracy_is_that_of_the_test(run: Run) -> None:
    results = run("ZeroshotCLIP", TEST__SPLIT="val").results
    assert "accuracy_test" in results and "accuracy_val" not in results
