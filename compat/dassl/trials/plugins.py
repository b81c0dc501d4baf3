"""Third-party plugins, whose scripts run in separate processes.

There are two calling conventions: CoOp's, which many plugins share, and UPL's.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .material import NARROW, SIZE, WIDE

HOST = Path(__file__).with_name("host.py")
TIMEOUT = 1800  # seconds


class Failed(Exception):
    """Failure of a plugin's script, with a one-line message."""


class CoOpStyle:
    """A plugin with CoOp's `train.py`. Runs use the plugin's own configs, with settings for short runs.

    Args:
        checkout: Folder of the plugin.
        work: Working directory of the scripts, with the folders `clips` and `data`.
    """

    script = "train.py"
    epochs = 3
    shots = 2
    settings: Mapping[str, str] = {}

    def __init__(self, checkout: Path, work: Path) -> None:
        self.checkout, self.work = checkout, work

    def trainers(self) -> dict[str, bool]:
        """Return the trainers of the script, and whether each of them trains something."""
        return dict(json.loads(self.run(self.script, action="trainers").splitlines()[-1]))

    def train(self, trainer: str, output: Path, kill_at: str = "") -> str:
        """Train, resuming from the last checkpoint if there is one. Returns the output."""
        return self.run(self.script, self._arguments(trainer, output), kill_at=kill_at)

    def evaluate(self, trainer: str, output: Path, trained: Path | None = None) -> str:
        """Evaluate a trained model, or one that needs no training. Returns the output."""
        model = ["--model-dir", str(trained), "--load-epoch", str(self.epochs)] if trained else []
        return self.run(self.script, ["--eval-only", *model, *self._arguments(trainer, output)])

    def _arguments(self, trainer: str, output: Path) -> list[str]:
        wide = trainer == "MaPLe"
        arguments = ["--root", "data", "--seed", "1", "--trainer", trainer, "--output-dir", str(output)]
        arguments += ["--backbone", WIDE if wide else NARROW]
        for config in sorted((self.checkout / "configs" / "trainers" / trainer).glob("*.yaml"))[:1]:
            arguments += ["--config-file", str(config)]
        settings = {
            "DATASET.NAME": "Digits",
            "DATASET.NUM_SHOTS": self.shots,
            "INPUT.SIZE": f"({SIZE}, {SIZE})",
            "DATALOADER.NUM_WORKERS": 0,
            "DATALOADER.TRAIN_X.BATCH_SIZE": 10 if wide else 4,  # larger batches for fewer steps, which are slow
            "OPTIM.MAX_EPOCH": self.epochs,
            "TRAIN.PRINT_FREQ": 1,
            "TRAIN.CHECKPOINT_FREQ": 1,
            **self.settings,
        }
        return arguments + [str(word) for pair in settings.items() for word in pair]

    def run(self, script: str, arguments: Sequence[str] = (), *, action: str = "run", kill_at: str = "") -> str:
        """Run a script.

        Args:
            script: Path of the script in the checkout.
            arguments: Arguments of the script.
            action: `run`, or `trainers` to list its trainers.
            kill_at: Text in the output at which the process must be killed; empty to let it finish.

        Returns:
            Output of the script.

        Raises:
            Failed: If the script fails, takes too long, or is not killed at `kill_at`.
        """
        command = [sys.executable, str(HOST), str(self.checkout), str(self.work / "clips"), action, script, *arguments]
        environment = {**os.environ, "HOME": str(self.work / "home"), "MPLBACKEND": "Agg", "DASSL_PROGRESS": "0"}
        environment["PYTHONUNBUFFERED"] = "1"  # else printed text may come after a later traceback
        if kill_at:
            environment["KILL_AT"] = kill_at
        try:
            done = subprocess.run(
                command,
                cwd=self.work,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{script} was still running after {TIMEOUT // 60} minutes") from None
        with (self.work / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n{done.stdout}")
        if kill_at and done.returncode == 0:
            raise Failed(f"{script} never printed {kill_at!r}")
        if done.returncode != (-signal.SIGKILL if kill_at else 0):
            raise Failed(self._reason(done.stdout))
        return done.stdout

    def _reason(self, output: str) -> str:
        """Return why a script failed: the last line of its output, and the line of the plugin that raised the error."""
        lines = output.strip().splitlines() or ["failed without a word"]
        places = re.findall(rf'File "{re.escape(str(self.checkout))}/(.+?)", line (\d+)', output)
        return lines[-1].strip()[:160] + (f" ({places[-1][0]}:{places[-1][1]})" if places else "")


class UplStyle(CoOpStyle):
    """UPL: `get_info.py` labels images, `upl_train.py` trains, and `upl_test.py` evaluates runs of 50 epochs."""

    script = "upl_train.py"
    epochs = 50
    shots = 16
    settings: Mapping[str, str] = {"MODEL.PSEUDO_LABEL_MODELS": f"['{NARROW.replace('/', '-')}']"}

    def trainers(self) -> dict[str, bool]:
        """Return UPL's own trainer, the only one that its scripts call."""
        return {name: trains for name, trains in super().trainers().items() if name == "UPLTrainer"}

    def train(self, trainer: str, output: Path, kill_at: str = "") -> str:
        """Label the images, then train. Returns the output."""
        self.run("get_info.py", self._arguments(trainer, output.with_name("labels")))
        return super().train(trainer, output, kill_at)

    def evaluate(self, trainer: str, output: Path, trained: Path | None = None) -> str:
        """Evaluate a trained model. Returns the output."""
        return self.run("upl_test.py", ["--model-dir", str(trained), *self._arguments(trainer, output)])


def style_of(checkout: Path) -> type[CoOpStyle] | None:
    """Return the calling convention of a checkout's scripts; None if it is unknown."""
    return next((style for style in (UplStyle, CoOpStyle) if (checkout / style.script).is_file()), None)
