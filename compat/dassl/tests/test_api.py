"""Public names, default config, and imports without side effects."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dassl.config import clean_cfg, get_cfg_default
from toys import upstream_fault

NAMES = {
    "config": "get_cfg_default clean_cfg",
    "data": "DataManager DatasetWrapper",
    "data.data_manager": "DataManager DatasetWrapper build_data_loader",
    "data.datasets": "DATASET_REGISTRY DatasetBase Datum build_dataset",
    "data.datasets.base_dataset": "DatasetBase Datum",
    "data.samplers": "build_sampler RandomDomainSampler SeqDomainSampler RandomClassSampler",
    "data.transforms": "build_transform INTERPOLATION_MODES",
    "data.transforms.transforms": "build_transform INTERPOLATION_MODES Random2DTranslation InstanceNormalization "
    "Cutout GaussianNoise",
    "engine": "TRAINER_REGISTRY TrainerBase SimpleTrainer TrainerX TrainerXU build_trainer",
    "engine.trainer": "TrainerBase SimpleTrainer TrainerX TrainerXU AverageMeter MetricMeter SummaryWriter",
    "evaluation": "EVALUATOR_REGISTRY build_evaluator EvaluatorBase Classification",
    "evaluation.build": "EVALUATOR_REGISTRY build_evaluator",
    "evaluation.evaluator": "EvaluatorBase Classification",
    "metrics": "compute_accuracy",
    "optim": "build_optimizer build_lr_scheduler",
    "optim.radam": "RAdam",
    "utils": "AverageMeter MetricMeter Logger Registry check_availability check_isfile collect_env_info "
    "count_num_param listdir_nohidden load_checkpoint load_pretrained_weights mkdir_if_missing read_image read_json "
    "resume_from_checkpoint save_checkpoint set_random_seed setup_logger tolist_if_not write_json",
    "utils.tools": "mkdir_if_missing check_isfile read_json write_json set_random_seed listdir_nohidden read_image "
    "collect_env_info check_availability tolist_if_not",
}


@pytest.mark.parametrize("module", NAMES)
def test_public_names(module: str) -> None:
    imported = importlib.import_module(f"dassl.{module}")
    for name in NAMES[module].split():
        assert getattr(imported, name) is not None
    with pytest.raises(AttributeError):
        _ = imported.no_such_name


def flat(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield lines of key and value; the repr distinguishes 1, 1.0 and True, and lists and tuples."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} {value!r}"


def test_defaults_are_those_of_dassl_in_a_new_config() -> None:
    expected = Path(__file__).with_name("defaults.txt").read_text().splitlines()
    for _ in range(2):
        cfg = get_cfg_default()
        assert sorted(flat(cfg)) == expected
        cfg.OPTIM.LR = 7.0
        cfg.INPUT.PIXEL_MEAN.append(1.0)
        cfg.TRAINER.OWN = cfg.OPTIM


@pytest.mark.parametrize(("key", "value"), [("OPTIM.LR", 1), ("OPTIM.MAX_EPOCH", 1.5), ("SEED", "one")])
def test_wrong_types_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match="Type mismatch"):
        get_cfg_default().merge_from_list([key, value])


def test_clean_cfg_drops_settings_of_other_trainers() -> None:
    cfg = get_cfg_default()
    clean_cfg(cfg, "FixMatch")
    assert list(cfg.TRAINER) == ["NAME", "FIXMATCH"]


SIDE_EFFECTS = """
import io, logging, sys, threading, warnings
before = logging.root.manager.disable, logging.root.level, list(logging.root.handlers), threading.active_count()
hooks = sys.excepthook, warnings.showwarning, sys.stdout, sys.stderr
import dassl.engine, dassl.data, dassl.evaluation, dassl.optim, dassl.metrics, dassl.utils
after = logging.root.manager.disable, logging.root.level, list(logging.root.handlers), threading.active_count()
assert after == before, (before, after)
assert hooks == (sys.excepthook, warnings.showwarning, sys.stdout, sys.stderr)
heavy = {"sklearn", "tensorboard", "pandas", "torchvision", "matplotlib", "gdown"} & set(sys.modules)
assert not heavy, heavy
"""


@upstream_fault("switches logging off, and loads wilds, pandas, scikit-learn and TensorBoard")
def test_import_has_no_side_effects() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", SIDE_EFFECTS], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
