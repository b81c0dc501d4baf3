"""Config files that cannot be read, and unknown keys in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import train

ErrorOf = Callable[..., str]


@pytest.fixture
def error_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> ErrorOf:
    """Run train.py with a config file that it must refuse; returns the error line."""

    def call(content: str | bytes = "", name: str = "some.yaml", make: bool = True, opts: tuple[str, ...] = ()) -> str:
        path, out = tmp_path / name, tmp_path / "out"
        if make:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        argv = ["--trainer", "CoFT", "--backbone", "RN50", "--output-dir", str(out), "--config-file", str(path)]
        assert train.main([*argv, *opts]) == 2
        line = capsys.readouterr().err.strip()
        assert line.startswith("error: ") and "\n" not in line and len(line) < 900 and not out.exists()
        if make and not opts:
            assert name in line
        return line

    return call


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("SEED: 1\nOPTIM: {LR: 1}\nSEED: 2", "'SEED' is listed twice in line 3"),
        ("SEED: !!int 5", "is a tag in line 1"),
        (b"\xff\xfe\x00\x01", "is no text in UTF-8"),
        (b"x" * (2 << 20), "too large for a config"),
        ("optim: {LR: 1}", "unknown config key 'optim'; did you mean 'OPTIM'?"),
        ("x" * 900 + "z: 1", "unknown config key 'xxx"),
        ("SEED: 010", "SEED is '010'"),
        ("TRAINER: {FIXMTCH: {WEIGHT_U: 1}}", "unknown config key 'TRAINER.FIXMTCH'; did you mean"),
    ],
    ids=range(8),
)
def test_bad_content_is_refused(error_of: ErrorOf, content: str | bytes, message: str) -> None:
    assert message in error_of(content)


def test_a_path_that_is_no_config_file_is_refused(error_of: ErrorOf, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    for name in ("folder.yaml", "missing.yaml"):
        assert f"{name}: no such file; check the path" in error_of(name=name, make=False)
    assert "File name too long; give a shorter path" in error_of(name="x" * 300 + ".yaml", make=False)
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    assert "loop.yaml" in error_of(name="loop.yaml", make=False)
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "pipe.yaml: no such file" in error_of(name="pipe.yaml", make=False)
    program = "import pathlib; pathlib.Path(__file__).with_suffix('.done').touch(); cfg = {}"
    assert "a config is YAML and its name ends in .yaml or .yml" in error_of(program, name="some.py")
    assert not (tmp_path / "some.done").exists()
    assert "ends in .yaml or .yml" in error_of("SEED: 1", name="some.txt")


def test_empty_files_and_sections_of_other_trainers_are_accepted(error_of: ErrorOf) -> None:
    section = "TRAINER: {FIXMATCH: {WEIGHT_U: 1, STRONG_TRANSFORMS: [a]}}"
    for content in (
        "",
        "# nothing\n",
        "---\n",
        "OPTIM:\n",
        "OPTIM: {}",
        "OPTIM:\n  LR: 1e-4\n  STEPSIZE: (5,)",
        section,
    ):
        assert "DATASET.NAME: unknown name ''" in error_of(content, opts=("SEED", "3"))


def test_options_override_a_file_and_errors_name_the_source(error_of: ErrorOf) -> None:
    opts = ("OPTIM.LR_SCHEDULER", "multi_step", "DATASET.NAME", "Digits")
    assert "some.yaml: OPTIM.STEPSIZE is (4, 2); multi_step needs" in error_of("OPTIM: {STEPSIZE: [4, 2]}", opts=opts)
    assert "DATASET.NAME: unknown" in error_of("OPTIM: {LR: 2}", opts=("OPTIM.LR", "1"))
    assert "some.yaml: OPTIM.LR is -2" in error_of("OPTIM: {LR: -2}", opts=("OPTIM.LR", "1"))


def test_a_bad_config_in_the_output_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("[1, 2]")
    argv = ["--trainer", "CoFT", "--backbone", "RN50", "--output-dir", str(tmp_path), "DATASET.NAME", "Digits"]
    assert train.main(argv) == 2
    assert "config.yaml: no settings of a run; choose another output folder" in capsys.readouterr().err
    assert train.main([*argv, "OUTPUT_DIR", "x" * 300]) == 2
    assert "cannot be read (File name too long)" in capsys.readouterr().err
