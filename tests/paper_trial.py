"""The paper's table tried from end to end: python -m tests.paper_trial FOLDER (minutes on two cores).

All eleven sets are made up, the backbone is a ViT of random weights in OpenAI's format, two workers share the CPU. One
worker is killed, one finds the disk full, one set is missing. Then the same command goes on.
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


def worker(folder: Path, words: list[str]) -> int:
    """train.py, which the first time meets what the trial has in store for its run."""
    import train

    for trap, (method, dataset) in (("killed", KILLED), ("full", FULL)):
        mark = folder / trap
        if not mark.exists() and f"/{dataset}/{method}/" in " ".join(words):
            mark.touch()
            if trap == "killed":
                threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    return train.main([*words, "DATALOADER.NUM_WORKERS", "0"])


def shortened(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the shortest of all settings that its trainer has."""
    mine = f"TRAINER.{row['trainer'].upper()}."
    short = {key: value for key, value in SHORT.items() if key.startswith(mine) or not key.startswith("TRAINER.")}
    return {**row, "settings": {**row.get("settings", {}), **short}}


def main(folder: Path, rows: list[str]) -> int:
    """Run the trial. Returns 0 if the table came out whole in the end."""
    data, out, clip = folder / "data", folder / "out", folder / "ViT-B-16.pt"
    shutil.rmtree(folder, ignore_errors=True)
    for name in SETS:
        write_set(data, name, size=40)
    torch.save({name: value.half() for name, value in make_clip(vit=True).state_dict().items()}, clip)
    content = yaml.safe_load((CONFIGS / "paper.yaml").read_text(encoding="utf-8"))
    declared = {row["name"]: row for row in yaml.safe_load(FILE.read_text(encoding="utf-8"))["methods"]}
    methods = [shortened(declared[row] if isinstance(row, str) else row) for row in content["methods"]]
    methods = [row for row in methods if not rows or row["name"] in rows]
    content |= {"sets": {name: vars(facts(name)) for name in SETS}, "methods": methods, "seeds": [1]}
    content |= {"backbones": [str(clip)]}
    (folder / "trial.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    words = ["--benchmark", str(folder / "trial.yaml"), "--data", str(data), "--output", str(out), "--gpus", "0,1"]
    command = [sys.executable, "-m", "tests.paper_trial", "--worker", str(folder)]
    (data / MISSING).rename(data / "elsewhere")
    codes = [compare([*words, "--dry-run"]), compare(words, command)]
    (data / "elsewhere").rename(data / MISSING)
    codes += [compare([*words, "--part", f"{number}/2"], command) for number in (1, 2)]
    print(f"exit codes: {codes}; tables: {sorted(path.name for path in (out / 'benchmark').iterdir())}")
    return int(codes != [0, 1, 0, 0])


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        sys.exit(worker(Path(sys.argv[2]), sys.argv[3:]))
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
