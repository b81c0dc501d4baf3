"""Peers on two checkpoints: each peer has one, the frozen model has both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from coft.backbones.architecture import is_vit
from coft.backbones.descriptions import described_features, load_descriptions
from coft.core.errors import UserError
from coft.inference.export.command import main as export
from coft.inference.store import load
from coft.method.coft_plus import PREDICTION_DESCRIPTION_SHARE
from tests.coft.toys import assert_same_bits
from tests.conftest import CLASSNAMES, draw
from tests.trainers.conftest import weights
from tests.trainers.runs import Run, train_until


@pytest.fixture
def both(checkpoints: dict[str, Path]) -> str:
    return f"{checkpoints['resnet']}+{checkpoints['vit']}"


@pytest.mark.parametrize("trainer", ["CoFT", "CoFTPlus", "SelfTraining", "Supervised", "TrainingFree", "ZeroshotCLIP2"])
def test_the_saved_model_predicts_the_same_bits(run: Run, both: str, trainer: str) -> None:
    built = run(trainer, both)
    assert 0 <= built.results["accuracy_test"] <= 100
    if trainer == "TrainingFree":
        return
    model = load(Path(built.output_dir))
    images = next(iter(built.test_loader))["img"]
    assert torch.equal(model.log_probabilities(images), built.engine.predict(images))
    kinds = [is_vit(model.visual_of(encoder)) for encoder in model.predictor.encoders]
    assert kinds == ([False] if trainer == "ZeroshotCLIP2" else [False, True])


def test_an_interrupted_run_resumes_to_the_same_bits(run: Run, both: str) -> None:
    whole, first = run("CoFTPlus", both, out="whole"), run("CoFTPlus", both, train=False)
    train_until(first, 3)
    resumed = run("CoFTPlus", both)
    assert resumed.start_epoch == 3
    assert_same_bits(weights(whole), weights(resumed))


def test_a_trainer_of_one_checkpoint_refuses_two(run: Run, both: str) -> None:
    with pytest.raises(UserError, match=r"UPL takes one checkpoint; name one, or run one of CoFT, CoFTPlus, Self"):
        run("UPL", both)


def test_descriptions_are_mixed_into_each_peer(run: Run, both: str, described: Path) -> None:
    from_file = {"TRAINER__COFTPLUS__DESCRIPTIONS__FROM": described}
    built = run("CoFTPlus", both, train=False, **from_file)
    plain = run("CoFTPlus", both, train=False, out="plain")
    built.engine.begin(), plain.engine.begin()
    parts = zip(*(list(trainer.method.predictor().classifiers.values()) for trainer in (built, plain)), strict=True)
    for index, (mixed, plain_part) in enumerate(parts):
        member = built.engine.clip.member(index)
        text = described_features(member.clip_model, CLASSNAMES, member.templates, load_descriptions(described), 1.0)
        expected = F.normalize(torch.lerp(plain_part.positive, text, PREDICTION_DESCRIPTION_SHARE), dim=-1)
        torch.testing.assert_close(mixed.positive, expected, atol=2e-3, rtol=0)
        assert not torch.allclose(mixed.positive, plain_part.positive, atol=1e-2)


def test_a_model_of_both_cannot_be_exported_to_open_clip(run: Run, both: str, tmp_path: Path, capsys: Any) -> None:
    built = run("ZeroshotCLIP2", both)
    assert export([built.output_dir, "--to", "open_clip", str(tmp_path / "clip")]) == 2
    assert "the format holds one checkpoint, and the model predicts by two" in capsys.readouterr().err


def test_exports_hold_both_peers_or_one(run: Run, both: str, tmp_path: Path, capsys: Any) -> None:
    built = run("CoFT", both)
    folder = built.output_dir
    Image.fromarray(draw(0, np.random.default_rng(0))).save(tmp_path / "image.png")
    args = [folder, "--images", str(tmp_path / "image.png"), "--to"]
    assert export([*args, "onnx", str(tmp_path / "onnx")]) == 0
    assert "the same class as the run's model for 100.0 %" in (tmp_path / "onnx" / "README.md").read_text()
    capsys.readouterr()
    for to in ("head", "open_clip"):
        assert export([*args, to, str(tmp_path / "none")]) == 2
        assert "have no average; name one with --peers a, or b" in capsys.readouterr().err
    assert export([*args, "head", str(tmp_path / "head"), "--peers", "b"]) == 0
    assert export([*args, "open_clip", str(tmp_path / "clip"), "--peers", "a"]) == 0
    names = dict(zip(["clip", "head"], both.split("+"), strict=True)) | {"onnx": both}
    for exported, name in names.items():
        card = (tmp_path / exported / "README.md").read_text()
        assert f"{name}, fingerprint" in card and (name == both or both not in card)
