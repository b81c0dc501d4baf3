"""Settings reach the method; bad values are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from coft.core.errors import UserError
from coft.core.experiment import flatten
from coft.core.timing import STEPS, WAITING, TimedLoader
from coft.labelling.classifier import Classifier
from tests.coft.toys import assert_same_bits
from tests.trainers.conftest import in_section, weights
from tests.trainers.runs import Run

PRINTED = Path(__file__).parents[2] / "configs" / "trainers" / "CoFT" / "as_printed.yaml"


@pytest.mark.parametrize(
    ("trainer", "settings", "message"),
    [
        (
            "CoFT",
            in_section("COFT", {"CLEAN_RULE": "sigmoids"}),
            "TRAINER.COFT.CLEAN_RULE is .*; did you mean 'sigmoid'?",
        ),
        ("CoFT", in_section("COFT", {"VISUAL": "vpt"}), "VISUAL.*'vpt'.*vpt-deep"),
        ("CoFT", {"TRAIN__COMPILE": "inductr"}, "TRAIN.COMPILE is 'inductr'.*inductor"),
        ("CoFT", {"INPUT__SIZE": "(48, 48)"}, r"INPUT.SIZE is \(48, 48\), backbone .* accepts \(32, 32\)"),
        ("CoFTPlus", in_section("COFTPLUS", {"CONTRAST__WEIGHT": -1.0}), "COFTPLUS.CONTRAST.WEIGHT is -1.0"),
        ("DeFT", in_section("DEFT", {"CLASS_NEGATIVE": True}), "unknown config key 'TRAINER.DEFT.CLASS_NEGATIVE'"),
    ],
)
def test_a_bad_setting_is_refused(run: Run, trainer: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as error:
        run(trainer, **settings)
    assert "\n" not in error.value.line


def test_the_config_as_printed_trains_with_its_settings(run: Run) -> None:
    text = PRINTED.read_text(encoding="utf-8")
    printed = flatten(yaml.safe_load(text))
    trainer = run("CoFT", **{key.replace(".", "__"): value for key, value in printed.items()})
    used = trainer.method.settings
    assert (used.clean_rule, used.negative, used.classify, used.filter) == (
        "sigmoid",
        "prompt",
        "positive",
        "min-p-clean-hard",
    )
    assert (used.n_ctx, used.prior_tau, used.label_views, used.phase2.wise, used.phase2.ema) == (16, 0.0, 1, 1.0, 0.0)
    a, b = (peer.prompts.positive.ctx for peer in trainer.method.peers.values())
    assert a.shape == b.shape == (16, trainer.clip_model.token_embedding.embedding_dim) and not torch.equal(a, b)
    models = trainer.method.inference_models()
    for name, peer in trainer.method.peers.items():
        assert set(trainer.method.labels[name].weight.tolist()) <= {0.0, 1.0}
        assert models[name] is peer.teacher()
        torch.testing.assert_close(peer.teacher().positive, peer.student.model.positive)
    assert 0 <= trainer.results["accuracy_test"] <= 100


@pytest.mark.parametrize("kind", ["lora", "norms-and-biases", "none"])  # the default of a ViT is vpt-deep
def test_the_visual_module_trains_in_both_phases(run: Run, kind: str) -> None:
    trainer = run("CoFT", "vit", TRAINER__COFT__VISUAL=kind)
    peer = trainer.method.peers["peer_a"]
    phase1, frozen = dict(peer.encoder.named_parameters()), dict(trainer.clip_model.visual.named_parameters())
    changed = [name for name, p in phase1.items() if name not in frozen or not torch.equal(p, frozen[name])]
    assert bool(changed) == (kind != "none")
    assert any(not torch.equal(p, phase1[name]) for name, p in peer.student.model.encoder.named_parameters())
    restored = run("CoFT", "vit", train=False, out="other", TRAINER__COFT__VISUAL=kind)
    restored.load_model(trainer.output_dir)
    assert_same_bits(weights(trainer), weights(restored))


def test_phase_one_uses_the_settings_of_optim(run: Run) -> None:
    trainer = run("CoFT", train=False, OPTIM__NAME="adamw", OPTIM__LR=0.02, OPTIM__WEIGHT_DECAY=0.07)
    for optimizer in trainer.engine.optimizers.values():
        assert isinstance(optimizer.optimizer, torch.optim.AdamW)
        assert {(group["lr"], group["weight_decay"]) for group in optimizer.optimizer.param_groups} == {(0.02, 0.07)}


def test_models_predict_in_evaluation_mode(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    features, modes = Classifier.features, {True: set[bool](), False: set[bool]()}

    def record(classifier: Classifier, images: torch.Tensor) -> torch.Tensor:
        modes[torch.is_grad_enabled()].add(classifier.encoder.training)
        return features(classifier, images)

    monkeypatch.setattr(Classifier, "features", record)
    run("CoFT")
    assert modes == {True: {True}, False: {False}}


@pytest.mark.parametrize("trainer", ["CoFTPlus", "LaFTer", "Supervised"])
def test_micro_batches_and_compilation_apply_to_every_encoder(
    run: Run, monkeypatch: pytest.MonkeyPatch, trainer: str
) -> None:
    compiled: list[tuple[Any, str]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, backend: compiled.append((module, backend)))
    built, sizes = run(trainer, train=False, TRAIN__MICRO_BATCH=7, TRAIN__COMPILE="eager"), list[int]()
    loss = built.method.loss
    built.method.loss = lambda name, part: sizes.append(len(part.views)) or loss(name, part)
    built.train()
    assert max(sizes) == 7
    assert compiled == [(built.method.student(name).encoder, "eager") for name in built.method.models]


def test_a_run_records_time_by_part(run: Run) -> None:
    epochs = {"PHASE1__EPOCHS": 3, "PHASE1__MIN_STEPS": 6, "PHASE2__EPOCHS": 1}  # two steps per epoch of Phase I
    built = run("CoFT", train=False, DATALOADER__TRAIN_X__BATCH_SIZE=6, **in_section("COFT", epochs))
    built.train()
    assert {STEPS, WAITING, "labelling", "evaluation", "saving"} <= built.clock.split().keys()
    assert not isinstance(built.train_loader_x, TimedLoader)
