"""Execution of a plugin's scripts in separate processes, with a one-line reason for failures."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HARD_CODED = "hard-codes .cuda()"
HOST = Path(__file__).with_name("host.py")
TIMEOUT = 1800  # seconds


class Failed(Exception):
    """Failure of a plugin's script, with a one-line message."""


class Host:
    """Runner of the scripts of one checkout.

    Args:
        checkout: Folder of the plugin.
        work: Working directory of the scripts, with the folders `clips` and `data`.
        stay_on_cpu: Whether `.cuda()` does nothing.
    """

    def __init__(self, checkout: Path, work: Path, stay_on_cpu: bool = False) -> None:
        self.checkout, self.work = checkout, work
        self.environment = {**os.environ, "HOME": str(work / "home"), "MPLBACKEND": "Agg", "DASSL_PROGRESS": "0"}
        self.environment["PYTHONUNBUFFERED"] = "1"  # else printed text may come after a later traceback
        if stay_on_cpu:
            self.environment["STAY_ON_CPU"] = "1"

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
        environment = {**self.environment, "KILL_AT": kill_at} if kill_at else self.environment
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
            raise Failed(explain(done.stdout, self.checkout))
        return done.stdout


def explain(output: str, checkout: Path) -> str:
    """Return why a script failed: the last line of its output, and the line of the plugin that raised the error."""
    lines = output.strip().splitlines()
    reason = lines[-1].strip() if lines else "failed without a word"
    places = re.findall(rf'File "{re.escape(str(checkout))}/(.+?)", line (\d+)', output)
    place = f" ({places[-1][0]}:{places[-1][1]})" if places else ""
    if re.search(r"CUDA|NVIDIA driver", reason):
        return f"{HARD_CODED}{place}"
    return f"{reason[:160]}{place}"
