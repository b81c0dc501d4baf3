"""The command printed by a review is valid for the scripts."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from coft.core.errors import UserError
from coft.core.experiment import flatten
from coft.review.rerun_command import command_with
from coft.review.reviewed import read_reviewed
from scripts import launch
from tests.coft.report.runs import write_images, write_run
from train import make_parser
from trainers import extend_cfg
from trainers.config import make_cfg


def config_of(trainer: str, arguments: list[str]) -> Any:
    """Return the config of a run by a script."""
    argv = launch.train_arguments(trainer, launch.parse(trainer, arguments))
    return make_cfg(make_parser().parse_args(argv), extend_cfg)


def test_command_repeats_all_settings_of_the_run(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    images, run = tmp_path / "my images", tmp_path / "run"
    write_run(run, write_images(images, [f"{i}.png" for i in range(40)]), ["cat", "dog"], tested=False)
    flags = ["--backbone", str(checkpoints["vit"]), "--seed", "5", "--output-dir", str(run)]
    keys = ["INPUT.AUGMENT", "aerial", "TRAINER.COFTPLUS.PHASE2.LR", "0.0002", "TRAIN.GUARD", "False"]
    keys += ["OPTIM.LR", "0.02", "TRAINER.COFTPLUS.DESCRIPTIONS.FROM", "none", "DATALOADER.TRAIN_X.BATCH_SIZE", "7"]
    keys += ["DATASET.NUM_UNLABELED", "30", "DATASET.DESCRIPTIONS", "auto", "DATASET.DESCRIPTIONS_SHARE", "0.25"]
    cfg = config_of("CoFTPlus", ["folder", "--images", str(images), "--classes", "cat, dog", *flags, *keys])
    (run / "config.yaml").write_text(cfg.dump())
    classes = tmp_path / "classes.txt"
    classes.write_text("cat | tom\nhound\n")
    bash, script, *arguments = shlex.split(command_with(read_reviewed(run), classes))
    assert bash == "bash" and Path(script).samefile(launch.ROOT / "scripts" / "coft_plus.sh")
    rerun = config_of("CoFTPlus", arguments)
    before, after = (flatten(yaml.safe_load(tree.dump())) for tree in (cfg, rerun))
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"DATASET.CLASSES", "OUTPUT_DIR"}
    (run / "config.yaml").write_text(cfg.dump().replace("DESCRIPTIONS: auto", 'DESCRIPTIONS: "a\\eb.json"'))
    with pytest.raises(UserError, match="has control characters"):
        command_with(read_reviewed(run), classes)
    assert after["DATASET.CLASSES"] == str(classes) and after["OUTPUT_DIR"] == f"{run}-2"
