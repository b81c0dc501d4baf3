"""An end-to-end trial of the paper's table: python -m tests.paper_trial FOLDER (minutes on two cores).

It uses eleven synthetic data sets, a ViT of random weights and two workers on the CPU. One worker is killed, one meets
a full disk, and one data set is missing. Then the same command resumes.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch
import yaml

from scripts.comparing.benchmark import FILE
from scripts.comparing.commands import compare
from scripts.launch import CONFIGS
from tests.conftest import make_clip
from tests.scripts.made_up import SETS, facts, write_set

KILLED, FULL, MISSING = ("UPL", "dtd"), ("CoFT", "ucf101"), "eurosat"
SHORT = {
    **{"DATALOADER.TRAIN_X.BATCH_SIZE": 8, "OPTIM.MAX_EPOCH": 2, "TRAIN.EVAL_FREQ": 0},
    **{f"TRAINER.{name}.PHASE1.{key}": 2 for name in ("COFT", "COFTPLUS", "DEFT") for key in ("EPOCHS", "MIN_STEPS")},
    **{f"TRAINER.{name}.PHASE2.EPOCHS": 2 for name in ("COFT", "COFTPLUS", "DEFT")},
    **{f"TRAINER.{name}.EPOCHS": 2 for name in ("SELFTRAINING", "LAFTER", "SUPERVISED")},
    **{"TRAINER.SELFTRAINING.PHASE1_STEPS": 2, "TRAINER.CPL.ROUNDS": 2, "TRAINER.LAFTER.TEXT_STEPS": 5},
}


def worker(folder: Path, options: list[str]) -> int:
    """train.py, with the faults of the trial in the first runs of `KILLED` and `FULL`."""
    import train

    for fault, (method, dataset) in (("killed", KILLED), ("full", FULL)):
        marker = folder / fault
        if not marker.exists() and f"/{dataset}/{method}/" in " ".join(options):
            marker.touch()
            if fault == "killed":
                threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    return train.main([*options, "DATALOADER.NUM_WORKERS", "0"])


def shorten(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the short settings of its trainer."""
    prefix = f"TRAINER.{row['trainer'].upper()}."
    short = {key: value for key, value in SHORT.items() if key.startswith(prefix) or not key.startswith("TRAINER.")}
    return {**row, "settings": {**row.get("settings", {}), **short}}


def main(folder: Path, rows: list[str]) -> int:
    """Run the trial. Returns 0 if the table is complete at the end."""
    data, out, clip = folder / "data", folder / "out", folder / "ViT-B-16.pt"
    shutil.rmtree(folder, ignore_errors=True)
    for name in SETS:
        write_set(data, name, size=40)
    torch.save({name: value.half() for name, value in make_clip(vit=True).state_dict().items()}, clip)
    content = yaml.safe_load((CONFIGS / "paper.yaml").read_text(encoding="utf-8"))
    declared = {row["name"]: row for row in yaml.safe_load(FILE.read_text(encoding="utf-8"))["methods"]}
    methods = [shorten(declared[row] if isinstance(row, str) else row) for row in content["methods"]]
    methods = [row for row in methods if not rows or row["name"] in rows]
    content |= {"sets": {name: vars(facts(name)) for name in SETS}, "methods": methods, "seeds": [1]}
    content |= {"backbones": [str(clip)]}
    (folder / "trial.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    options = ["--benchmark", str(folder / "trial.yaml"), "--data", str(data), "--output", str(out), "--gpus", "0,1"]
    command = [sys.executable, "-m", "tests.paper_trial", "--worker", str(folder)]
    (data / MISSING).rename(data / "elsewhere")
    codes = [compare([*options, "--dry-run"]), compare(options, command)]
    (data / "elsewhere").rename(data / MISSING)
    codes += [compare([*options, "--part", f"{number}/2"], command) for number in (1, 2)]
    print(f"exit codes: {codes}; tables: {sorted(path.name for path in (out / 'benchmark').iterdir())}")
    return int(codes != [0, 1, 0, 0])


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        sys.exit(worker(Path(sys.argv[2]), sys.argv[3:]))
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
