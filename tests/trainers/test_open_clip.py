"""Trainers with tiny random open_clip models of all families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from coft.core.errors import UserError
from coft.inference.export.command import main
from tests.open_clip_models import CONFIGS, write_model
from tests.trainers.conftest import SHORT, weights
from tests.trainers.runs import Run

TRAINERS = ("CoFT",)
SIGLIP_TRAINERS = (*TRAINERS, "CoFTPlus", "LaFTer", "SelfTraining", "UPL", "ZeroshotCLIP2")  # least like OpenAI's
RUNS = [(t, f) for f in CONFIGS for t in (SIGLIP_TRAINERS if f == "siglip" else TRAINERS)]
SHORTER = {"PHASE1__EPOCHS": 1, "PHASE2__EPOCHS": 1, "EPOCHS": 1, "ROUNDS": 2, "ENSEMBLE": 1}


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Backbone names by family."""
    root = tmp_path_factory.mktemp("open_clip")
    return {name: f"open_clip:{write_model(root / name, config)}" for name, config in CONFIGS.items()}


def settings_of(trainer: str) -> dict[str, Any]:
    """Settings of a very short run."""
    short = {key: SHORTER.get(key.split("__", 2)[-1], value) for key, value in SHORT[trainer].items()}
    return short | {"DATASET__NUM_UNLABELED": 18} if "DATASET__NUM_SHOTS" not in short else short


@pytest.mark.parametrize(("trainer", "family"), RUNS)
def test_a_trainer_trains_and_predicts(run: Run, backbones: dict[str, str], trainer: str, family: str) -> None:
    built = run(trainer, backbones[family], **settings_of(trainer))
    assert 0 <= built.results["accuracy_test"] <= 100
    assert all(torch.isfinite(value).all() for value in weights(built).values() if value.is_floating_point())
    logits = built.model_inference(torch.randn(4, 3, *built.cfg.INPUT.SIZE))
    assert logits.shape == (4, 3) and logits.std(dim=0).min() > 0


def test_a_vit_is_exported_to_onnx(run: Run, backbones: dict[str, str], tmp_path: Path) -> None:
    built, before = run("UPL", backbones["vit"], **settings_of("UPL")), torch.backends.mha.get_fastpath_enabled()
    assert main([built.output_dir, "--to", "onnx", str(tmp_path / "onnx")]) == 0  # it compares with the model
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_only_a_cnn_accepts_another_input_size(run: Run, backbones: dict[str, str]) -> None:
    built = run("UPL", backbones["timm-cnn"], INPUT__SIZE="(96, 96)", **settings_of("UPL"))
    assert next(iter(built.test_loader))["img"].shape[-2:] == (96, 96)
    assert built.images.inputs.size == 96
    with pytest.raises(
        UserError, match=r"INPUT.SIZE is \(100, 100\), .* a multiple of 32 from 64 on; leave INPUT.SIZE"
    ):
        run("UPL", backbones["timm-cnn"], INPUT__SIZE="(100, 100)")
    with pytest.raises(UserError, match=r"INPUT.SIZE is \(64, 64\), backbone .* accepts \(32, 32\); leave INPUT.SIZE"):
        run("UPL", backbones["vit"], INPUT__SIZE="(64, 64)")


def test_preprocessing_is_the_backbone_s_unless_it_is_set(configure: Run, tmp_path: Path) -> None:
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear"}
    name = f"open_clip:{write_model(tmp_path / 'model', CONFIGS['vit'], preprocess)}"
    inputs = configure("CoFT", name).INPUT
    assert (inputs.SIZE, inputs.PIXEL_MEAN, inputs.INTERPOLATION) == ((32, 32), [0.1, 0.2, 0.3], "bilinear")
    assert inputs.PIXEL_STD == [0.4, 0.5, 0.6]
    inputs = configure("CoFT", name, INPUT__PIXEL_MEAN="[0.5, 0.5, 0.5]", INPUT__INTERPOLATION="nearest").INPUT
    assert (inputs.PIXEL_MEAN, inputs.PIXEL_STD, inputs.INTERPOLATION) == ([0.5] * 3, [0.4, 0.5, 0.6], "nearest")


def test_convolutions_have_channels_last(run: Run, backbones: dict[str, str]) -> None:
    weight = run("ZeroshotCLIP", backbones["timm-cnn"]).clip_model.visual.trunk.conv_stem.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_loaded_weights_predict_the_same(run: Run, backbones: dict[str, str]) -> None:
    settings = settings_of("CoFT")
    whole = run("CoFT", backbones["timm-cnn"], out="whole", **settings)
    loaded = run("CoFT", backbones["timm-cnn"], out="loaded", train=False, **settings)
    loaded.load_model(whole.output_dir)
    images = torch.randn(4, 3, 64, 64)
    torch.testing.assert_close(loaded.model_inference(images), whole.model_inference(images))
