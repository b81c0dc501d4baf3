"""SelfTraining and Supervised: full fine-tuning that differs in the labels alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from coft.backbones.prompts import ensemble_features
from coft.images.views import normalize, plain_view
from coft.runtime.errors import UserError
from tests.trainers.conftest import assert_same_bits, weights
from tests.trainers.test_label_free import blank_labels, changed, permute_labels

BOTH = pytest.mark.parametrize("trainer", ["SelfTraining", "Supervised"])


@BOTH
@pytest.mark.parametrize("backbone", ["resnet", "vit"])
def test_every_model_starts_as_the_zero_shot_classifier(run: Callable[..., Any], trainer: str, backbone: str) -> None:
    built, image = run(trainer, backbone, train=False), torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        features = F.normalize(built.clip_model.encode_image(image), dim=-1)
        text = ensemble_features(built.clip_model, built.classnames, built.templates)
        expected = (built.clip_model.logit_scale.exp() * features @ text.t()).softmax(dim=1)
        torch.testing.assert_close(built.model_inference(image).exp(), expected, atol=1e-5, rtol=1e-4)


@BOTH
def test_models_differ_and_all_their_encoders_weights_train(run: Callable[..., Any], trainer: str) -> None:
    start, built = weights(run(trainer, train=False, out="start")), weights(run(trainer))
    first = {key: value for key, value in built.items() if key.startswith("model_1.student.")}
    moved = [key for key, value in first.items() if not torch.equal(value, start[key])]
    still = [key for key in first if key not in moved and "running_" not in key and "num_batches" not in key]
    assert still == ["model_1.student.negative"]  # there is no dual loss
    assert all(not torch.equal(first[key], built[key.replace("model_1", "model_2")]) for key in moved)


def test_pseudo_labels_are_the_argmax_of_the_average_with_the_prior_corrected(run: Callable[..., Any]) -> None:
    built = run("SelfTraining", TRAINER__SELFTRAINING__REFRESH=1)
    built.set_model_mode("eval")
    built.teach()
    view = plain_view(built.cfg)
    images = normalize(built.cfg)(torch.stack([view(built.pool.image(rank)) for rank in range(len(built.pool))]))
    for peer in built.peers.values():
        with torch.no_grad():
            logits = peer.ema.module(images)[0].double()
        prior = [sum(float(p) for p in logits.softmax(dim=1)[:, c]) / len(images) for c in range(3)]
        expected = []
        for row in logits:
            scores = [float(row[c]) - 0.5 * math.log(prior[c]) for c in range(3)]
            expected.append(scores.index(max(scores)))
        assert peer.lesson.labels.tolist() == expected and bool(peer.lesson.keep.all())


def test_the_zero_shot_model_labels_first(run: Callable[..., Any]) -> None:
    built = run("SelfTraining", train=False, TRAINER__SELFTRAINING__PRIOR_TAU=0.0)
    built.before_epoch()
    view = plain_view(built.cfg)
    images = normalize(built.cfg)(torch.stack([view(built.pool.image(rank)) for rank in range(len(built.pool))]))
    with torch.no_grad():
        text = ensemble_features(built.clip_model, built.classnames, built.templates)
        expected = (F.normalize(built.clip_model.encode_image(images), dim=-1) @ text.t()).argmax(dim=1)
    for peer in built.peers.values():
        assert torch.equal(peer.lesson.labels, expected)


def test_labels_are_renewed_every_few_epochs(run: Callable[..., Any]) -> None:
    built, epochs = run("SelfTraining", train=False, TRAINER__SELFTRAINING__EPOCHS=5), []
    teach = built.teach
    built.teach = lambda: (epochs.append(built.epoch), teach())
    built.train()
    assert epochs == [0, 2, 4]


def test_the_loss_is_cross_entropy_adjusted_by_the_labels_frequencies(run: Callable[..., Any]) -> None:
    built = run("Supervised", train=False)
    built.epoch = 0
    built.before_epoch()
    part = next(iter(built.train_loader_x))["model_1"]
    with torch.no_grad():
        logits = built.peers["model_1"].learner()(part["view"])[0].double()
    truth = built.truth.tolist()
    counts = [truth.count(c) + 1 for c in range(3)]
    expected = 0.0
    for row, rank in zip(logits, part["rank"].tolist(), strict=True):
        adjusted = [float(row[c]) + math.log(counts[c] / sum(counts)) for c in range(3)]
        expected += math.log(sum(math.exp(a - max(adjusted)) for a in adjusted)) + max(adjusted) - adjusted[truth[rank]]
    assert built.loss("model_1", part).item() == pytest.approx(expected / len(logits), abs=1e-4)


def test_supervision_teaches_the_labels_of_the_chosen_shots(run: Callable[..., Any]) -> None:
    built = run("Supervised", DATASET__NUM_SHOTS=3)
    assert built.labels_used == len(built.pool) == 9
    for peer in built.peers.values():
        for rank, label in enumerate(peer.lesson.labels.tolist()):
            assert Path(built.pool.paths[rank]).name.startswith(f"train_{label}_")


def test_supervision_has_the_images_of_label_free_trainers(run: Callable[..., Any]) -> None:
    free = run("SelfTraining", train=False, DATASET__NUM_UNLABELED=20, out="free")
    built = run("Supervised", train=False, DATASET__NUM_UNLABELED=20)
    assert built.pool.paths == free.pool.paths and built.labels_used == 20
    names = [f"train_{label}_" for label in built.truth.tolist()]
    assert all(Path(path).name.startswith(name) for path, name in zip(built.pool.paths, names, strict=True))
    shots = run("Supervised", train=False, DATASET__NUM_UNLABELED=20, DATASET__NUM_SHOTS=8, out="shots")
    assert shots.labels_used == 24
    transductive = run("Supervised", train=False, DATASET__NUM_UNLABELED=20, DATASET__UNLABELED="test", out="test")
    assert transductive.labels_used == 60


def test_labels_do_change_full_supervision(run: Callable[..., Any], shapes: Path, tmp_path: Path) -> None:
    reference = weights(run("Supervised", out="reference"))
    permuted = weights(run("Supervised", root=changed(shapes, tmp_path / "permuted", permute_labels), out="permuted"))
    assert any(not torch.equal(reference[key], permuted[key]) for key in reference)


def test_supervision_without_labels_is_refused(run: Callable[..., Any], shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Supervised needs labels"):
        run("Supervised", root=changed(shapes, tmp_path / "blank", blank_labels))


@BOTH
def test_summary_and_wise_average(run: Callable[..., Any], trainer: str) -> None:
    section = trainer.upper()
    built = run(trainer, **{f"TRAINER__{section}__ENSEMBLE": 3, f"TRAINER__{section}__WISE": 0.25})
    summary = json.loads((Path(built.output_dir) / "summary.json").read_text())
    assert (summary["ensemble"], summary["labels_used"]) == (3, 60 if trainer == "Supervised" else 0)
    built.model_inference(torch.randn(2, 3, 32, 32))
    for classifier, peer in zip(built.deployed, built.peers.values(), strict=True):
        start, end = built.clip_model.visual.conv1.weight, peer.ema.module.encoder.conv1.weight
        torch.testing.assert_close(classifier.encoder.conv1.weight, 0.75 * start + 0.25 * end)


@BOTH
def test_a_stopped_run_goes_on_to_the_same_bits(run: Callable[..., Any], trainer: str) -> None:
    whole = run(trainer, out="whole")
    first = run(trainer, out="stopped", train=False)
    original = first.forward_backward

    class Stop(Exception):
        pass

    def stop(batch: Any) -> Any:
        if first.epoch == 1:
            raise Stop
        return original(batch)

    first.forward_backward = stop
    with pytest.raises(Stop):
        first.train()
    second = run(trainer, out="stopped")
    assert_same_bits(weights(whole), weights(second))
    third = run(trainer, train=False, out="third")
    third.load_model(second.output_dir)
    assert third.test() == pytest.approx(second.results["accuracy_test"])


@BOTH
def test_an_average_of_more_than_all_is_refused(run: Callable[..., Any], trainer: str) -> None:
    with pytest.raises(UserError, match=rf"TRAINER.{trainer.upper()}.WISE is 1.5; expected a number from 0 to 1"):
        run(trainer, **{f"TRAINER__{trainer.upper()}__WISE": 1.5})


@BOTH
@pytest.mark.parametrize("key", ["EPOCHS", "ENSEMBLE"])
def test_counts_below_one_are_refused(run: Callable[..., Any], trainer: str, key: str) -> None:
    with pytest.raises(UserError, match=rf"TRAINER.{trainer.upper()}.{key} is 0; expected at least 1"):
        run(trainer, **{f"TRAINER__{trainer.upper()}__{key}": 0})
