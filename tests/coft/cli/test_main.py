"""The command line: help and bad paths are answered without large imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import coft
from coft.cli.main import main
from tests.forks import ROOT

LARGE = ("torch", "torchvision", "pandas", "sklearn", "open_clip", "matplotlib")
PROGRAM = f"""
import sys
from coft.cli.main import main
for words in {{words!r}}:
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    print("answered", words[0], code, [name for name in {LARGE!r} if name in sys.modules])
"""


def test_help_and_bad_paths_import_no_large_library(tmp_path: Path) -> None:
    """torch takes seconds to import."""
    model, nowhere = tmp_path / "run" / "model", str(tmp_path / "nowhere")
    model.mkdir(parents=True)
    (model / "model.json").write_text("{}")
    commands_by_code = {
        0: [
            ["--help"],
            *([name, "--help"] for name in ("adapt", "predict", "export", "report", "review")),
            ["--version"],
        ],
        2: [
            ["adapt", nowhere, "--classes", "cat, dog"],
            ["predict", nowhere, "a.png"],
            ["predict", str(tmp_path / "run"), nowhere],
            ["export", nowhere, "new", "--to", "head"],
            ["export", str(tmp_path / "run"), str(tmp_path), "--to", "head"],
            ["report", nowhere],
            ["review", nowhere],
        ],
    }
    commands = [arguments for argument_lists in commands_by_code.values() for arguments in argument_lists]
    code = PROGRAM.format(words=commands)
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    answers = [line for line in process.stdout.splitlines() if line.startswith("answered")]
    expected = [
        (code, arguments[0]) for code, argument_lists in commands_by_code.items() for arguments in argument_lists
    ]
    assert answers == [f"answered {name} {code} []" for code, name in expected]
    assert process.stderr.count("error: ") == len(commands_by_code[2])


def test_settings_are_listed_by_python_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "EPOCHS", "--method", "coft+"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == sorted(lines) and any(line.startswith("phase1__epochs=") for line in lines)
    assert main(["settings", "no such thing"]) == 2
    assert "coft settings lists all" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"coft {coft.__version__}\n"
