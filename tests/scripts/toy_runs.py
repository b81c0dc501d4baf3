"""Runs of a toy in the place of train.py: it leaves a summary.json, or fails, or takes its time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from scripts.comparing.methods import Method
from scripts.comparing.plan import Run

TOY = """
import json, os, signal, sys, time
from pathlib import Path

folder, config, accuracy, behaviour = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4]
with (folder / "starts").open("a") as file:
    file.write(f"{os.environ['OMP_NUM_THREADS']}\\n")
if behaviour == "fails":
    sys.exit("error: out of luck")
if behaviour == "hangs" and not (folder / "half").exists():
    (folder / "half").touch()
    try:
        print("epoch [2/4] batch [3/6] loss", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
        sys.exit(130)
if behaviour == "together":
    (folder / "here").touch()
    end = time.time() + 20
    while len(list(folder.parent.glob("*/here"))) < 2:
        if time.time() > end:
            sys.exit("error: alone")
        time.sleep(0.01)
summary = {"trainer": "UPL", "dataset": "Toy", "backbone": "RN50", "seed": 1, "shots": -1, "seconds": 1.0}
summary |= {"results": {"accuracy_test": accuracy}, "config": config, "ensemble": 1, "labels_used": 0}
(folder / "summary.json").write_text(json.dumps(summary))
"""


def toy_command(folder: Path) -> list[str]:
    """Write the toy; what to put before a run's arguments."""
    path = folder / "toy.py"
    path.write_text(TOY)
    return [sys.executable, str(path)]


def toy_run(output: Path, name: str, behaviour: str = "works", accuracy: float = 80.0) -> Run:
    """A run of the toy."""
    config = {"TRAINER.NAME": name, "SEED": 1}
    arguments = (str(output / name), yaml.safe_dump(config), str(accuracy), behaviour)
    return Run(Method(name, "UPL"), "toy", "RN50", 1, arguments, output / name, config)


def starts(run: Run) -> list[str]:
    """OMP_NUM_THREADS of each time that a run was started."""
    path = run.folder / "starts"
    return path.read_text().split() if path.is_file() else []


def write_summary(folder: Path, trainer: str = "UPL", seed: int = 1, **more: Any) -> Path:
    """Leave what a finished run of the project leaves; `results` as accuracies by name."""
    folder.mkdir(parents=True, exist_ok=True)
    config = more.pop("config", {"SEED": seed, "TRAINER": {"NAME": trainer}})
    summary = {"trainer": trainer, "dataset": "Digits", "backbone": "embedded", "seed": seed, "shots": -1}
    summary |= {"seconds": 10.0, "results": {"accuracy_test": 80.0}, "config": yaml.safe_dump(config), **more}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
