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
        ("[1, 2]", "holds [1, 2]; expected sections with keys"),
        ("text", "holds 'text'; expected sections"),
        ("5", "holds 5; expected sections"),
        ("OPTIM: [", "no YAML that can be read"),
        ("OPTIM: {LR: 1, LR: 2}", "no YAML that can be read ('LR' stands twice in line 1)"),
        ("SEED: 1\nOPTIM: {LR: 1}\nSEED: 2", "'SEED' stands twice"),
        ("a: !!python/object/apply:os.system ['true']", "no YAML that can be read"),
        ("? [1, 2]\n: 3", "no YAML that can be read"),
        ("[" * 5000, "nested too deeply"),
        ("SEED: !!int x", "no YAML that can be read"),
        ("SEED: !!timestamp x", "no YAML that can be read"),
        ("SEED: 2024-13-45", "no YAML that can be read"),
        (b"\xff\xfe\x00\x01", "is no text in UTF-8"),
        (b"SEED: \x00\x01", "no YAML that can be read"),
        (b"x" * (2 << 20), "too large for a config"),
        ("OPTIM: 5", "OPTIM is 5; set one of its keys, such as OPTIM.NAME"),
        ("OPTIM: [LR]", "OPTIM is ['LR']; set one of its keys"),
        ("SEED: {A: 1}", "SEED is {'A': 1}; expected a whole number from -1 to"),
        ("OPTIM: {LR: {A: 1}}", "OPTIM.LR is {'A': 1}; expected a number, at least 0"),
        ("OPTIM: {RL: 1}", "unknown config key 'OPTIM.RL'; did you mean"),
        ("optim: {LR: 1}", "unknown config key 'optim'; did you mean 'OPTIM'?"),
        ("OPTIM.LR: 1", "OPTIM.LR is not how a file says it; write OPTIM: {LR: ...}"),
        ("5: 1", "unknown config key '5'"),
        ("~: 1", "unknown config key 'None'"),
        ("x" * 900 + "z: 1", "unknown config key 'xxx"),
        ("SEED: 010", "SEED is '010'; expected a whole number"),
        ("SEED: 1:30", "SEED is '1:30'; expected a whole number"),
        ("SEED: 2024-01-01", "SEED is datetime.date(2024, 1, 1); expected a whole number"),
        ("SEED: &a [*a]", "SEED is [[[...]]]; expected a whole number"),
        ("OPTIM: &a {OPTIM: *a}", "unknown config key 'OPTIM.OPTIM'"),
        ("DATASET: {NAME: 5}", "DATASET.NAME is 5; expected text; write \"'5'\""),
        ("DATASET: {NAME: no}", "DATASET.NAME is False; expected text"),
        ('OUTPUT_DIR: "a\\0b"', "OUTPUT_DIR is 'a\\x00b'; expected text"),
        ("TRAINER: {FIXMATCH: {WEIGHT_U: much}}", "TRAINER.FIXMATCH.WEIGHT_U is 'much'; expected a number"),
        ("TRAINER: {FIXMTCH: {WEIGHT_U: 1}}", "unknown config key 'TRAINER.FIXMTCH'; did you mean 'TRAINER.FIXMATCH'?"),
    ],
    ids=range(35),
)
def test_what_is_wrong_in_a_file(says: Says, content: str | bytes, message: str) -> None:
    assert message in says(content)


def test_what_is_no_config_file(says: Says, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert "is a folder; give a .yaml file" in says(name="folder.yaml", make=False)
    assert "no such file" in says(name="missing.yaml", make=False)
    assert "cannot be read (File name too long)" in says(name="x" * 300 + ".yaml", make=False)
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    assert "loop.yaml" in says(name="loop.yaml", make=False)
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "is no plain file" in says(name="pipe.yaml", make=False)
    program = "import pathlib; pathlib.Path(__file__).with_suffix('.done').touch(); cfg = {}"
    assert "a config is YAML and its name ends in .yaml or .yml" in says(program, name="given.py")
    assert not (tmp_path / "given.done").exists()
    assert "ends in .yaml or .yml" in says("SEED: 1", name="given.txt")


def test_files_that_say_nothing_and_other_trainers_sections(says: Says) -> None:
    other = "TRAINER: {FIXMATCH: {WEIGHT_U: 1, STRONG_TRANSFORMS: [a]}}"
    for content in ("", "# nothing\n", "---\n", "OPTIM:\n", "OPTIM: {}", "OPTIM:\n  LR: 1e-4\n  STEPSIZE: (5,)", other):
        assert "DATASET.NAME: unknown name ''" in says(content, opts=("SEED", "3"))


def test_a_later_source_wins_and_errors_name_the_first(says: Says) -> None:
    assert "given.yaml: OPTIM.STEPSIZE is (4, 2); multi_step needs" in says(
        "OPTIM: {STEPSIZE: [4, 2]}", opts=("OPTIM.LR_SCHEDULER", "multi_step")
    )
    assert "DATASET.NAME: unknown" in says("OPTIM: {LR: 2}", opts=("OPTIM.LR", "1"))
    assert "given.yaml: OPTIM.LR is -2" in says("OPTIM: {LR: -2}", opts=("OPTIM.LR", "1"))


def nested(name: str, value: str) -> str:
    parts = name.split(".")
    return "{" + ": {".join(parts) + f": {value}" + "}" * len(parts)


def test_what_a_run_left_behind_that_is_no_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("[1, 2]")
    argv = ["--trainer", "CoFT", "--backbone", "RN50", "--output-dir", str(tmp_path), "DATASET.NAME", "Digits"]
    assert train.main(argv) == 2
    assert "config.yaml: no settings of a run; choose another output folder" in capsys.readouterr().err
    assert train.main([*argv, "OUTPUT_DIR", "x" * 300]) == 2
    assert "cannot be read (File name too long)" in capsys.readouterr().err
