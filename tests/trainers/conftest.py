"""Short runs of whole trainers. Tests that only read a run share the run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.engine import run_log
from coft.method import guard, negatives
from coft.method.negative_prompt import fit_negative
from coft.rivals import deft
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import set_random_seed
from tests.coft import toys
from tests.conftest import CLASSNAMES
from tests.trainers.runs import Run
from trainers.base import MethodTrainer

PHASES = {
    "SEEDS_PER_CLASS": 3,
    "LABEL_VIEWS": 2,
    "PHASE1__EPOCHS": 2,
    "PHASE1__MIN_STEPS": 4,
    "PHASE2__EPOCHS": 3,
    "PHASE2__LR": 1e-3,
}
TWO_STEPS = {"OPTIM__NAME": "sgd", "OPTIM__LR": 0.01}
PROMPTS = TWO_STEPS | {"OPTIM__MAX_EPOCH": 2}


def in_section(section: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a trainer's section, with their full names."""
    return {f"TRAINER__{section}__{key}": value for key, value in settings.items()}


SHORT: dict[str, dict[str, Any]] = {
    "CoFT": TWO_STEPS | in_section("COFT", PHASES),
    "CoFTPlus": TWO_STEPS
    | in_section("COFTPLUS", PHASES | {"PHASE2__EPOCHS": 2, "ROUNDS": 2, "CONTRAST__WEIGHT": 0.5}),
    "DeFT": TWO_STEPS | in_section("DEFT", {key: value for key, value in PHASES.items() if key.startswith("PHASE")}),
    "UPL": PROMPTS | in_section("UPL", {"SEEDS_PER_CLASS": 3, "ENSEMBLE": 2}),
    "GRIP": PROMPTS | in_section("GRIP", {"ROUNDS": 3}) | {"OPTIM__MAX_EPOCH": 1},
    "CPL": PROMPTS | in_section("CPL", {"ROUNDS": 2, "ACROSS": 0.5}) | {"OPTIM__MAX_EPOCH": 1},
    "CoOp": PROMPTS | {"DATASET__NUM_SHOTS": 2},
    "SelfTraining": in_section("SELFTRAINING", {"EPOCHS": 2, "LR": 1e-3, "REFRESH": 1}),
    "MUST": in_section("MUST", {"EPOCHS": 2, "LR": 1e-3, "THRESHOLD": 0.0}),
    "DPA": in_section("DPA", {"EPOCHS": 2, "LR": 1e-3}),
    "LaFTer": in_section("LAFTER", {"EPOCHS": 2, "TEXT_STEPS": 20}),
    "Supervised": in_section("SUPERVISED", {"EPOCHS": 2, "LR": 1e-3}),
    "TrainingFree": {},
    "ZeroshotCLIP": {},
    "ZeroshotCLIP2": {},
}
OURS = [name for name in TRAINER_REGISTRY.registered_names() if issubclass(TRAINER_REGISTRY.get(name), MethodTrainer)]
LABEL_FREE = [name for name in OURS if TRAINER_REGISTRY.get(name).spec.label_free]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten warm-up and negative fits, and switch the guards off that would stop CLIPs of random weights."""
    monkeypatch.setattr(guard, "MIN_SKILL", -1.0)
    monkeypatch.setattr(deft, "WARMUP_STEPS", 2)
    monkeypatch.setattr(deft, "MIN_AUC", 0.0)
    monkeypatch.setattr(negatives, "fit_negative", partial(fit_negative, steps=10))


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A file with descriptions of the classes of Shapes."""
    path = tmp_path / "descriptions.json"
    path.write_text(json.dumps({name: [f"A {name} of ink.", f"A {name} on a wall."] for name in CLASSNAMES}))
    return path


@pytest.fixture
def run(configure: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Build and train a trainer with short settings: run("CoFT", "vit", out="folder", KEY=value ...)."""

    def start(trainer: str, backbone: str = "resnet", train: bool = True, curves: bool = False, **settings: Any) -> Any:
        cfg = configure(trainer, backbone, **(SHORT[trainer] | settings))
        set_random_seed(cfg.SEED)
        built = build_trainer(cfg)
        with monkeypatch.context() as patch:
            if not curves:  # drawing them is slow
                patch.setattr(run_log, "plot_curves", lambda history, path: None)
            if train:
                built.train()
        return built

    return start


@pytest.fixture(scope="session")
def _runs() -> dict[tuple[str, str], Any]:
    return {}


@pytest.fixture
def trained(run: Run, _runs: dict[tuple[str, str], Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained trainer that tests share and only read: trained("CoFT", "vit")."""

    def get(trainer: str, backbone: str = "resnet") -> Any:
        if (trainer, backbone) not in _runs:
            folder = tmp_path_factory.mktemp("trained")
            settings = {"out": str(folder / "run"), "TRAIN__CHECKPOINT_FREQ": 1, "TRAIN__EVAL_FREQ": 1}
            _runs[trainer, backbone] = run(trainer, backbone, curves=trainer == "CoFT", **settings)
        return _runs[trainer, backbone]

    return get


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    """All trained weights by name."""
    return toys.weights(trainer.method)


def text_features(trainer: Any) -> torch.Tensor:
    """Text features that training starts from."""
    method = trainer.method
    return method.text if hasattr(method, "text") else trainer.engine.clip.zero_shot_text()


def templates_of(trainer: Any) -> list[str]:
    """Templates whose text features are averaged."""
    return trainer.engine.clip.templates[: 1 if trainer.spec.trainer == "ZeroshotCLIP" else None]


def saved_weights(folder: Path, model: str, epoch: int) -> dict[str, torch.Tensor]:
    state = torch.load(folder / model / f"model.pth.tar-{epoch}", weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
