"""The pages on adding a data set and a trainer: what they say is done in a copy of the project, and works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw
from tests.forks import run_forked

ROOT = Path(__file__).resolve().parents[1]
PATH = re.compile(r"`([\w/.]+\.(?:py|yaml|sh))`")
NEEDED = ("coft", "datasets", "trainers", "configs", "scripts", "weights/embedded.pt", "train.py")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what runs, whose environment is ready."""
    for name in NEEDED:
        source, target = ROOT / name, tmp_path / "project" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.symlink_to(source)
    recorder = tmp_path / "python"
    recorder.write_text("#!/bin/sh\npwd\nprintf '%s\\n' \"$@\"\n")
    recorder.chmod(0o755)
    (tmp_path / "project" / "scripts" / "setup.sh").write_text(f'cd "$(dirname "$0")/.."; PYTHON={recorder}\n')
    return tmp_path / "project"


def follow(page: str, project: Path) -> list[str]:
    """Write the files of a page, append what is to be appended; returns its commands."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    commands: list[str] = []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S):
        kind, code = match.groups()
        if kind == "bash":
            commands += code.splitlines()
            continue
        before = text[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
        name = PATH.findall(before)[0]
        path = project / name
        if "end of" in before:
            path.write_text(path.read_text() + "\n" + code)
        else:
            assert not path.exists(), path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
    return commands


def call(command: str, project: Path, data: Path, *more: str) -> str:
    """Run a command of a page; what its script asks Python for is done by a forked one."""
    asked = subprocess.run(
        ["bash", "-c", " ".join([command, *more])], cwd=project, text=True, capture_output=True, timeout=60
    )
    assert asked.returncode == 0, asked.stdout[-2000:] + asked.stderr[-2000:]
    folder, *arguments = asked.stdout.splitlines()
    done = run_forked(arguments, Path(folder), {**os.environ, "DATA": str(data), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def test_the_page_on_data_sets(copy: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 4)):
        for label, name in enumerate(("stop sign", "yield sign", "no entry sign")):
            folder = tmp_path / "data" / "signs" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(draw(label, rng)).save(folder / f"{i}.png")
    zeroshot, coft = follow("adding-a-dataset.md", copy)
    assert "a photo of a {}." in call(zeroshot, copy, tmp_path / "data")
    short = ("TRAINER.COFT.PHASE1.MIN_STEPS", "2", "TRAINER.COFT.SEEDS_PER_CLASS", "2", "DATALOADER.NUM_WORKERS", "0")
    assert "after Phase II" in call(coft, copy, tmp_path / "data", *short)
    summaries = [json.loads(path.read_text()) for path in (copy / "output" / "signs").rglob("summary.json")]
    assert {summary["dataset"] for summary in summaries} == {"Signs"} and len(summaries) == 2


def test_the_page_on_trainers(copy: Path, tmp_path: Path) -> None:
    plain, changed = follow("adding-a-trainer.md", copy)
    small = ("DATASET.NUM_UNLABELED", "100", "DATALOADER.NUM_WORKERS", "0")
    for command in (plain, changed):
        call(command, copy, tmp_path / "data", *small)
    summaries = [
        json.loads(path.read_text()) for path in (copy / "output" / "digits" / "ClassMeans").rglob("summary.json")
    ]
    accuracies = {summary["results"]["accuracy_test"] for summary in summaries}
    assert len(accuracies) == 2 and min(accuracies) > 80
    assert all(summary["labels_used"] == 0 and summary["unlabeled"] == "training images" for summary in summaries)


@pytest.mark.parametrize("page", ["adding-a-dataset.md", "adding-a-trainer.md"])
def test_the_code_is_short(page: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.strip() and '"""' not in line]
    assert len(lines) <= 30


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
