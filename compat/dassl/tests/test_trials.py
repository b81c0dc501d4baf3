"""Trials of third-party plugins, with the small one in `plugin`, which is written like CoOp."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from forks import run_forked
from trials import __main__ as trials
from trials import material
from trials.__main__ import losses, same, weights
from trials.plugins import Failed

PLUGIN = Path(__file__).with_name("plugin")


@pytest.fixture
def forked_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the scripts of the plugin to save imports, except one that will be killed."""
    run_process = subprocess.run

    def run(command: list[str], *, cwd: Path, env: dict[str, str], **options: Any) -> Any:
        if "KILL_AT" in env and "Toy" in command:
            return run_process(command, cwd=cwd, env=env, **options)
        assert command[0] == sys.executable
        return run_forked(command[1:], cwd, env)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_scripts")
def test_trial_of_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(material, "WIDTHS", {material.NARROW: (64, 64)})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    checkout = shutil.copytree(PLUGIN, tmp_path / "SomePlugin", ignore=shutil.ignore_patterns("__pycache__"))
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    code = trials.main(["--keep", "trial", "SomePlugin"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[-4:]]
    assert [row[:2] for row in rows] == [["SomePlugin", n] for n in ("ZeroshotToy", "Toy", "NeedsGpu", "Broken")]
    zero_shot, toy, gpu, broken = (row[2:] for row in rows)
    assert zero_shot[0] == "-" and zero_shot[1].endswith("%") and zero_shot[2:] == ["-", ""]
    assert toy[0].startswith("3 epochs, loss ") and toy[1].endswith("%") and toy[2:] == ["same bits", ""]
    assert gpu[2:] == ["same bits", ""]
    assert broken[:3] == ["-"] * 3 and broken[3].startswith("ValueError: no such thing (trainers/toy.py:")
    assert code == 1  # because of Broken
    assert "Broken" in (tmp_path / "trial" / "log.txt").read_text()
    assert before == {path: path.read_bytes() for path in before}


def test_losses_of_first_and_last_epoch() -> None:
    lines = [f"epoch [{e}/2] batch [{b}/2] loss 9.0 ({e}.{b}) acc 1.0 (2.0)\n" for e in (1, 2) for b in (1, 2)]
    assert losses("".join(lines)) == "loss 1.2 to 2.2"
    with pytest.raises(Failed):
        losses(lines[0] + "epoch [2/2] batch [2/2] loss nan (nan)\n")


def test_weights_are_compared_exactly(tmp_path: Path) -> None:
    def save(folder: Path, value: float) -> dict[str, Any]:
        (folder / "model").mkdir(parents=True)
        torch.save({"state_dict": {"w": torch.tensor([value])}}, folder / "model" / "model.pth.tar-2")
        (folder / "model" / "checkpoint").write_text("model.pth.tar-2\n")
        return weights(folder)

    first, second, third = (save(tmp_path / name, v) for name, v in (("a", 1.0), ("b", 1.0), ("c", 1.0 + 1e-6)))
    assert list(first) == ["model/w"]
    assert same(first, second) and not same(first, third) and not same(first, {})
