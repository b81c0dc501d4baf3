"""train.py, which knows the trainers of experiments, too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # not this folder, whose statistics.py would hide Python's

import scripts.oracle.trainer  # noqa: E402, F401 - registers CoFTOracle
import train  # noqa: E402

if __name__ == "__main__":
    sys.exit(train.main())
