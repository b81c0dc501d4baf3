"""Configuration of a process before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def test_the_process_is_configured_before_torch_and_environment_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os, sys; from coft.core.startup import configure_process; configure_process(); " + (
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    for value, expected in (("", "1000 False"), ("7", "7 False")):
        environment = {**os.environ, **({"GOMP_SPINCOUNT": value} if value else {})}
        output = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert output.stdout.strip() == expected, output.stderr
