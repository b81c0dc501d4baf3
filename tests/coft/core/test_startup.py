"""Configuration of a process before torch is imported."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from coft.core import startup


def test_the_process_is_configured_before_torch_and_environment_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os, sys; from coft.core.startup import configure_process; configure_process(); " + (
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    for value, expected in (("", "1000 False"), ("7", "7 False")):
        environment = {**os.environ, **({"GOMP_SPINCOUNT": value} if value else {})}
        output = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert output.stdout.strip() == expected, output.stderr


def test_malloc_options_are_set_where_the_c_library_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = dict[int, int]()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=calls.__setitem__))
    startup.configure_process()
    assert calls == startup.OPTIONS
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    startup.configure_process()
