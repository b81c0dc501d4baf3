"""Running a plugin's scripts in processes of their own, and saying in one line why one failed."""

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
    """A script of a plugin failed; the message is one line."""


class Host:
    """Runs scripts of one checkout.

    Args:
        checkout: The plugin's folder.
        work: Folder of the run, with `clips` and `data` in it; the scripts' working directory.
        stay_on_cpu: Whether `.cuda()` leaves things where they are.
    """

    def __init__(self, checkout: Path, work: Path, stay_on_cpu: bool = False) -> None:
        self.checkout, self.work = checkout, work
        self.environment = {**os.environ, "HOME": str(work / "home"), "MPLBACKEND": "Agg", "DASSL_PROGRESS": "0"}
        self.environment["PYTHONUNBUFFERED"] = "1"  # else what was printed before a traceback comes after it
        if stay_on_cpu:
            self.environment["STAY_ON_CPU"] = "1"

    def run(self, script: str, arguments: Sequence[str] = (), *, action: str = "run", kill_at: str = "") -> str:
        """Run a script.

        Args:
            script: Its path in the checkout.
            arguments: Its arguments.
            action: `run`, or `trainers` to list the trainers it knows.
            kill_at: Text at whose appearance in the output the process is to die; it must.

        Returns:
            What it printed.

        Raises:
            Failed: If it fails, takes too long, or does not die where it should.
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
    """Say why a script failed: the last line of what it printed, and the plugin's line that it came from."""
    lines = output.strip().splitlines()
    reason = lines[-1].strip() if lines else "failed without a word"
    places = re.findall(rf'File "{re.escape(str(checkout))}/(.+?)", line (\d+)', output)
    place = f" ({places[-1][0]}:{places[-1][1]})" if places else ""
    if re.search(r"CUDA|NVIDIA driver", reason):
        return f"{HARD_CODED}{place}"
    return f"{reason[:160]}{place}"
