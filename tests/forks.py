"""Python scripts in forked processes (compat/dassl/tests/forks.py) that cannot import from this checkout.

So a script may have its own modules `trainers` or `datasets`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from compat.dassl.tests import forks

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ["pandas", "matplotlib.backends.backend_agg", "tensorboard.summary.writer.event_file_writer", "yacs.config"]
forks.preload(*LIBRARIES, "rich.progress", "safetensors.torch", "torchvision.transforms.v2")


def run_forked(argv: Sequence[str], cwd: Path, environment: Mapping[str, str] = os.environ) -> forks.Done:
    """Run `python *argv`, which begins with a script or `-m`; `stdout` has both streams."""
    return forks.run_forked(argv, cwd, environment, without=ROOT)
