"""Config files that are none, and keys that are gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import train

Says = Callable[..., str]


@pytest.fixture
def says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Says:
    """Run train.py with a config file of some content, which must end in one line; returns it."""

    def call(content: str | bytes = "", name: str = "given.yaml", make: bool = True, opts: tuple[str, ...] = ()) -> str:
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
        ("[1, 2]", "expected sections with keys"),
        ("SEED: 1\nOPTIM: {LR: 1}\nSEED: 2", "'SEED' is listed twice in line 3"),
        ("a: !!python/object/apply:os.system ['true']", "no YAML that can be read"),
        ("SEED: !!int 5", "is a tag in line 1"),
        ("[" * 5000, "nested too deeply"),
        (b"\xff\xfe\x00\x01", "is no text in UTF-8"),
        (b"x" * (2 << 20), "too large for a config"),
        ("OPTIM: [LR]", "OPTIM is a section"),
        ("SEED: {A: 1}", "SEED is {'A': '1'}"),
        ("OPTIM: {RL: 1}", "unknown config key 'OPTIM.RL'; did you mean"),
        ("optim: {LR: 1}", "unknown config key 'optim'; did you mean 'OPTIM'?"),
        ("x" * 900 + "z: 1", "unknown config key 'xxx"),
        ("SEED: 010", "SEED is '010'"),
        ("SEED: &a [*a]", "no YAML that can be read"),
        ("OPTIM: {LR:}", "OPTIM.LR is None"),
        ('OUTPUT_DIR: "a\\0b"', "OUTPUT_DIR is 'a\\x00b'"),
        ("TRAINER: {FIXMTCH: {WEIGHT_U: 1}}", "unknown config key 'TRAINER.FIXMTCH'; did you mean"),
    ],
    ids=range(17),
)
def test_what_is_wrong_in_a_file(says: Says, content: str | bytes, message: str) -> None:
    assert message in says(content)


def test_what_is_no_config_file(says: Says, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    for name in ("folder.yaml", "missing.yaml"):
        assert f"{name}: no such file; check the path" in says(name=name, make=False)
    assert "File name too long; give a shorter path" in says(name="x" * 300 + ".yaml", make=False)
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    assert "loop.yaml" in says(name="loop.yaml", make=False)
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "pipe.yaml: no such file" in says(name="pipe.yaml", make=False)
    program = "import pathlib; pathlib.Path(__file__).with_suffix('.done').touch(); cfg = {}"
    assert "a config is YAML and its name ends in .yaml or .yml" in says(program, name="given.py")
    assert not (tmp_path / "given.done").exists()
    assert "ends in .yaml or .yml" in says("SEED: 1", name="given.txt")


def test_files_that_say_nothing_and_other_trainers_sections(says: Says) -> None:
    other = "TRAINER: {FIXMATCH: {WEIGHT_U: 1, STRONG_TRANSFORMS: [a]}}"
    for content in ("", "# nothing\n", "---\n", "OPTIM:\n", "OPTIM: {}", "OPTIM:\n  LR: 1e-4\n  STEPSIZE: (5,)", other):
        assert "DATASET.NAME: unknown name ''" in says(content, opts=("SEED", "3"))


def test_a_later_source_wins_and_errors_name_the_first(says: Says) -> None:
    opts = ("OPTIM.LR_SCHEDULER", "multi_step", "DATASET.NAME", "Digits")
    assert "given.yaml: OPTIM.STEPSIZE is (4, 2); multi_step needs" in says("OPTIM: {STEPSIZE: [4, 2]}", opts=opts)
    assert "DATASET.NAME: unknown" in says("OPTIM: {LR: 2}", opts=("OPTIM.LR", "1"))
    assert "given.yaml: OPTIM.LR is -2" in says("OPTIM: {LR: -2}", opts=("OPTIM.LR", "1"))


def test_what_a_run_left_behind_that_is_no_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("[1, 2]")
    argv = ["--trainer", "CoFT", "--backbone", "RN50", "--output-dir", str(tmp_path), "DATASET.NAME", "Digits"]
    assert train.main(argv) == 2
    assert "config.yaml: no settings of a run; choose another output folder" in capsys.readouterr().err
    assert train.main([*argv, "OUTPUT_DIR", "x" * 300]) == 2
    assert "cannot be read (File name too long)" in capsys.readouterr().err
