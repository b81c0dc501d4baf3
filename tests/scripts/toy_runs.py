"""Files of finished runs, and a toy in place of train.py, which succeeds, fails or hangs."""

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
(folder / "device").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
with (folder / "starts").open("a") as file:
    file.write(f"{os.environ['OMP_NUM_THREADS']}\\n")
if behaviour == "fails":
    sys.exit("error: simulated failure")
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
    """Write the toy. Returns the command to which the arguments of a run are appended."""
    path = folder / "toy.py"
    path.write_text(TOY)
    return [sys.executable, str(path)]


def toy_run(output: Path, name: str, behaviour: str = "works", accuracy: float = 80.0) -> Run:
    """Make a run of the toy."""
    config = {"TRAINER.NAME": name, "SEED": 1}
    arguments = (str(output / name), yaml.safe_dump(config), str(accuracy), behaviour)
    return Run(Method(name, "UPL"), "toy", "RN50", 1, arguments, output / name, config)


def starts(run: Run) -> list[str]:
    """Return OMP_NUM_THREADS of each start of a run."""
    path = run.folder / "starts"
    return path.read_text().split() if path.is_file() else []


def write_summary(folder: Path, trainer: str = "UPL", seed: int = 1, **more: Any) -> Path:
    """Write the summary of a finished run of the project."""
    folder.mkdir(parents=True, exist_ok=True)
    config = more.pop("config", {"SEED": seed, "TRAINER": {"NAME": trainer}})
    summary = {"trainer": trainer, "dataset": "Digits", "backbone": "embedded", "seed": seed, "shots": -1}
    summary |= {"seconds": 10.0, "results": {"accuracy_test": 80.0}, "config": yaml.safe_dump(config), **more}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
