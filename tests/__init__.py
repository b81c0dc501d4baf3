"""Tests. Threads that wait for each other shall not keep the other processes from the cores (see train.py)."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read when torch is imported
