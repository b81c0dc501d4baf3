"""Names, paths and defaults; and what an import does not do."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest

from dassl.config import clean_cfg, get_cfg_default

from .toys import upstream_fault

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
    "count_num_param download_url init_network_weights listdir_nohidden load_checkpoint load_pretrained_weights "
    "mkdir_if_missing open_all_layers open_specified_layers read_image read_json resume_from_checkpoint "
    "save_checkpoint set_random_seed setup_logger tolist_if_not write_json",
    "utils.tools": "mkdir_if_missing check_isfile read_json write_json set_random_seed listdir_nohidden read_image "
    "collect_env_info check_availability tolist_if_not download_url",
}


@pytest.mark.parametrize("module", NAMES)
def test_names(module: str) -> None:
    found = importlib.import_module(f"dassl.{module}")
    for name in NAMES[module].split():
        assert getattr(found, name) is not None
    with pytest.raises(AttributeError):
        _ = found.no_such_name


ROOT = {"VERSION": 1, "OUTPUT_DIR": "./output", "RESUME": "", "SEED": -1, "USE_CUDA": True, "VERBOSE": True}
SECTIONS: dict[str, dict[str, Any]] = {
    "INPUT": {
        "SIZE": (224, 224),
        "INTERPOLATION": "bilinear",
        "TRANSFORMS": (),
        "NO_TRANSFORM": False,
        "PIXEL_MEAN": [0.485, 0.456, 0.406],
        "PIXEL_STD": [0.229, 0.224, 0.225],
        "CROP_PADDING": 4,
        "RRCROP_SCALE": (0.08, 1.0),
        "CUTOUT_N": 1,
        "CUTOUT_LEN": 16,
        "GN_MEAN": 0.0,
        "GN_STD": 0.15,
        "RANDAUGMENT_N": 2,
        "RANDAUGMENT_M": 10,
        "COLORJITTER_B": 0.4,
        "COLORJITTER_C": 0.4,
        "COLORJITTER_S": 0.4,
        "COLORJITTER_H": 0.1,
        "RGS_P": 0.2,
        "GB_P": 0.5,
        "GB_K": 21,
    },
    "DATASET": {
        "ROOT": "",
        "NAME": "",
        "SOURCE_DOMAINS": (),
        "TARGET_DOMAINS": (),
        "NUM_LABELED": -1,
        "NUM_SHOTS": -1,
        "VAL_PERCENT": 0.1,
        "STL10_FOLD": -1,
        "CIFAR_C_TYPE": "",
        "CIFAR_C_LEVEL": 1,
        "ALL_AS_UNLABELED": False,
    },
    "DATALOADER": {
        "NUM_WORKERS": 4,
        "K_TRANSFORMS": 1,
        "RETURN_IMG0": False,
        "TRAIN_X": {"SAMPLER": "RandomSampler", "BATCH_SIZE": 32, "N_DOMAIN": 0, "N_INS": 16},
        "TRAIN_U": {"SAME_AS_X": True, "SAMPLER": "RandomSampler", "BATCH_SIZE": 32, "N_DOMAIN": 0, "N_INS": 16},
        "TEST": {"SAMPLER": "SequentialSampler", "BATCH_SIZE": 32},
    },
    "MODEL": {
        "INIT_WEIGHTS": "",
        "BACKBONE": {"NAME": "", "PRETRAINED": True},
        "HEAD": {"NAME": "", "HIDDEN_LAYERS": (), "ACTIVATION": "relu", "BN": True, "DROPOUT": 0.0},
    },
    "OPTIM": {
        "NAME": "adam",
        "LR": 0.0003,
        "WEIGHT_DECAY": 5e-4,
        "MOMENTUM": 0.9,
        "SGD_DAMPNING": 0,
        "SGD_NESTEROV": False,
        "RMSPROP_ALPHA": 0.99,
        "ADAM_BETA1": 0.9,
        "ADAM_BETA2": 0.999,
        "STAGED_LR": False,
        "NEW_LAYERS": (),
        "BASE_LR_MULT": 0.1,
        "LR_SCHEDULER": "single_step",
        "STEPSIZE": (-1,),
        "GAMMA": 0.1,
        "MAX_EPOCH": 10,
        "WARMUP_EPOCH": -1,
        "WARMUP_TYPE": "linear",
        "WARMUP_CONS_LR": 1e-5,
        "WARMUP_MIN_LR": 1e-5,
        "WARMUP_RECOUNT": True,
    },
    "TRAIN": {"CHECKPOINT_FREQ": 0, "PRINT_FREQ": 10, "COUNT_ITER": "train_x"},
    "TEST": {
        "EVALUATOR": "Classification",
        "PER_CLASS_RESULT": False,
        "COMPUTE_CMAT": False,
        "NO_TEST": False,
        "SPLIT": "test",
        "FINAL_MODEL": "last_step",
    },
}
EXPERTS = {"WEIGHT_U": 0.5, "CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()}
TRAINERS: dict[str, Any] = {
    "NAME": "",
    "MCD": {"N_STEP_F": 4},
    "MME": {"LMDA": 0.1},
    "CDAC": {
        "CLASS_LR_MULTI": 10,
        "RAMPUP_COEF": 30,
        "RAMPUP_ITRS": 1000,
        "TOPK_MATCH": 5,
        "P_THRESH": 0.95,
        "STRONG_TRANSFORMS": (),
    },
    "SE": {"EMA_ALPHA": 0.999, "CONF_THRE": 0.95, "RAMPUP": 300},
    "M3SDA": {"LMDA": 0.5, "N_STEP_F": 4},
    "DAEL": EXPERTS,
    "DAELDG": EXPERTS,
    "CROSSGRAD": {"EPS_F": 1.0, "EPS_D": 1.0, "ALPHA_F": 0.5, "ALPHA_D": 0.5},
    "DDAIG": {
        "G_ARCH": "",
        "LMDA": 0.3,
        "CLAMP": False,
        "CLAMP_MIN": -1.0,
        "CLAMP_MAX": 1.0,
        "WARMUP": 0,
        "ALPHA": 0.5,
    },
    "DOMAINMIX": {"TYPE": "crossdomain", "ALPHA": 1.0, "BETA": 1.0},
    "ENTMIN": {"LMDA": 1e-3},
    "MEANTEACHER": {"WEIGHT_U": 1.0, "EMA_ALPHA": 0.999, "RAMPUP": 5},
    "MIXMATCH": {"WEIGHT_U": 100.0, "TEMP": 2.0, "MIXUP_BETA": 0.75, "RAMPUP": 20000},
    "FIXMATCH": {"WEIGHT_U": 1.0, "CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()},
}


def with_types(value: Any) -> Any:
    """A tree whose leaves carry their types, so that 1, 1.0 and True differ, and lists and tuples too."""
    if isinstance(value, dict):
        return {key: with_types(child) for key, child in value.items()}
    inner = [with_types(child) for child in value] if isinstance(value, (list, tuple)) else value
    return type(value).__name__, inner


def test_defaults() -> None:
    expected = {**ROOT, **SECTIONS, "TRAINER": TRAINERS}
    assert with_types(get_cfg_default()) == with_types(expected)


def test_defaults_are_fresh_each_time() -> None:
    cfg = get_cfg_default()
    cfg.OPTIM.LR = 7.0
    cfg.INPUT.PIXEL_MEAN.append(1.0)
    cfg.TRAINER.OWN = cfg.OPTIM
    assert with_types(get_cfg_default()) == with_types({**ROOT, **SECTIONS, "TRAINER": TRAINERS})


@pytest.mark.parametrize(("key", "value"), [("OPTIM.LR", 1), ("OPTIM.MAX_EPOCH", 1.5), ("SEED", "one")])
def test_types_are_strict(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match="Type mismatch"):
        get_cfg_default().merge_from_list([key, value])


def test_lists_become_tuples() -> None:
    cfg = get_cfg_default()
    cfg.merge_from_list(["INPUT.SIZE", [32, 32]])
    assert cfg.INPUT.SIZE == (32, 32)


def test_settings_of_other_trainers_are_dropped() -> None:
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
