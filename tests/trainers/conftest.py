"""Short runs of whole trainers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.method.pseudo_labels import Opinion
from tests.conftest import CLASSNAMES

SHORT = {
    "CoFT": {
        "TRAINER__COFT__SEEDS_PER_CLASS": 3,
        "TRAINER__COFT__EVAL_FREQ": 1,
        "TRAINER__COFT__PHASE1__EPOCHS": 2,
        "TRAINER__COFT__PHASE1__MIN_STEPS": 4,
        "TRAINER__COFT__PHASE1__WARMUP_STEPS": 2,
        "TRAINER__COFT__PHASE1__MIN_AUC": 0.0,
        "TRAINER__COFT__PHASE2__EPOCHS": 3,
        "TRAINER__COFT__PHASE2__LR": 1e-3,
        "OPTIM__NAME": "sgd",
        "OPTIM__LR": 0.01,
    },
    "UPL": {
        "TRAINER__UPL__SEEDS_PER_CLASS": 3,
        "OPTIM__MAX_EPOCH": 2,
        "OPTIM__NAME": "sgd",
        "OPTIM__LR": 0.01,
    },
    "CoOp": {
        "DATASET__NUM_SHOTS": 2,
        "OPTIM__MAX_EPOCH": 2,
        "OPTIM__NAME": "sgd",
        "OPTIM__LR": 0.01,
    },
    "ZeroshotCLIP": {},
    "ZeroshotCLIP2": {},
    "SelfTraining": {"TRAINER__SELFTRAINING__EPOCHS": 2, "TRAINER__SELFTRAINING__LR": 1e-3},
    "Supervised": {"TRAINER__SUPERVISED__EPOCHS": 2, "TRAINER__SUPERVISED__LR": 1e-3},
    "NormAdaptation": {},
    "GRIP": {
        "TRAINER__GRIP__ROUNDS": 3,
        "OPTIM__MAX_EPOCH": 1,
        "OPTIM__NAME": "sgd",
        "OPTIM__LR": 0.01,
    },
    "LaFTer": {"TRAINER__LAFTER__EPOCHS": 2, "TRAINER__LAFTER__TEXT_STEPS": 20},
}

SHORT["DeFT"] = {key.replace("COFT__", "DEFT__"): value for key, value in SHORT["CoFT"].items() if "SEEDS" not in key}
SHORT["CoFTPlus"] = {key.replace("COFT__", "COFTPLUS__"): value for key, value in SHORT["CoFT"].items()}
SHORT["CoFTPlus"]["TRAINER__COFTPLUS__ROUNDS"] = 2


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A file of descriptions for the classes of the test's data set."""
    path = tmp_path / "descriptions.json"
    path.write_text(json.dumps({name: [f"A {name} of ink.", f"A {name} on a wall."] for name in CLASSNAMES}))
    return path


@pytest.fixture
def run(configure: Callable[..., Any]) -> Callable[..., Any]:
    """Build a trainer with short settings and train it: run("CoFT", "vit", out="folder", KEY=value ...)."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    def start(trainer: str, backbone: str = "resnet", train: bool = True, **settings: Any) -> Any:
        cfg = configure(trainer, backbone, **(SHORT[trainer] | settings))
        set_random_seed(cfg.SEED)
        built = build_trainer(cfg)
        if train:
            built.train()
        return built

    return start


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    """All trained weights of a trainer, by name."""
    return {
        f"{name}.{key}": value
        for name, model in trainer._models.items()
        for key, value in model.state_dict().items()
        if isinstance(value, torch.Tensor)
    }


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different, different


def saved_weights(folder: Path, model: str, epoch: int) -> dict[str, torch.Tensor]:
    state = torch.load(folder / model / f"model.pth.tar-{epoch}", weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def drawn_opinion(seed: int) -> Opinion:
    """What a peer might think of 60 images and three classes."""
    source = torch.Generator().manual_seed(seed)
    probabilities, clean = torch.rand(2, 60, 3, generator=source).softmax(dim=2)
    return Opinion(probabilities.argmax(dim=1), probabilities, clean)
