"""The pages of docs/howto: their files are written and their commands run in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw
from tests.docs.pages import AT_END, DOCS, NEW_FILE, ROOT, blocks, commands
from tests.forks import run_forked
from tests.golden.runs import write_data

HOWTO = sorted((DOCS / "howto").glob("add-*.md"))
NEEDED = ("coft", "datasets", "trainers", "configs", "scripts", "weights/embedded.pt", "train.py")
WITHOUT = ("add-a-dataset", "use-a-model")  # pages without an independent script
SHORT = {"DATALOADER.NUM_WORKERS": 0, "DATASET.NUM_UNLABELED": 40, "TRAIN.EVAL_FREQ": 0}
SHORT_COFT = {"PHASE1.EPOCHS": 1, "PHASE1.MIN_STEPS": 2, "SEEDS_PER_CLASS": 1, "LABEL_VIEWS": 1, "PHASE2.EPOCHS": 1}


def follow(page: Path, project: Path) -> list[str]:
    """Write the files of a page, and append to existing files.

    Returns:
        Python code that belongs to no file.
    """
    scripts = []
    for block in blocks(page):
        new, appended = NEW_FILE.search(block.before), AT_END.search(block.before)
        if new:
            path = project / new[1]
            assert not path.exists(), path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code)
        elif appended:
            path = project / appended[1]
            path.write_text(path.read_text() + "\n" + block.code)
        elif block.kind == "python":
            scripts.append(block.code)
    return scripts


def write_signs(root: Path) -> None:
    """Write images in the layout of add-a-dataset.md."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 4)):
        for label, name in enumerate(("stop sign", "yield sign", "no entry sign")):
            folder = root / "signs" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(draw(label, rng)).save(folder / f"{i}.png")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of the project with a ready environment, after all pages were followed."""
    project = tmp_path_factory.mktemp("howto") / "project"
    for name in NEEDED:
        source, target = ROOT / name, project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.symlink_to(source)
    recorder = project.with_name("python")  # prints its arguments
    recorder.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    recorder.chmod(0o755)
    (project / "scripts" / "setup.sh").write_text(f'cd "$(dirname "$0")/.."; PYTHON={recorder}\n')
    write_data(project / "data")
    write_signs(project / "data")
    for page in HOWTO:
        for number, code in enumerate(follow(page, project)):
            (project / f"{page.stem}_{number}.py").write_text(code)
    return project


def call(arguments: list[str], project: Path) -> str:
    """Run Python in the copy of the project."""
    environment = {**os.environ, "DATA": str(project / "data"), "OMP_NUM_THREADS": "1"}
    done = run_forked(arguments, project, environment)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def run(command: str, project: Path) -> str:
    """Run a shortened command of a page; the Python call of its script is done by a forked process."""
    recorded = subprocess.run(
        ["bash", "-c", shortened(command)], cwd=project, text=True, capture_output=True, timeout=60, check=True
    )
    return call(recorded.stdout.splitlines(), project)


def shortened(command: str) -> str:
    """Return a command of a page with settings of a short run."""
    of_coft = SHORT_COFT if "/coft.sh" in command else {}
    pairs = SHORT | {f"TRAINER.COFT.{key}": value for key, value in of_coft.items()}
    return " ".join([command, "--verbose", *(f"{key} {value}" for key, value in pairs.items() if key not in command)])


def only_command(page: str) -> str:
    (command,) = commands(DOCS / "howto" / f"{page}.md")
    return command


def summaries(project: Path, *parts: str) -> list[dict[str, Any]]:
    folder = project.joinpath("output", *parts)
    return [json.loads(path.read_text()) for path in folder.rglob("summary.json")]


@pytest.mark.parametrize("page", [page for page in HOWTO if page.stem not in WITHOUT], ids=lambda page: page.stem)
def test_scripts_run(project: Path, page: Path) -> None:
    scripts = sorted(project.glob(f"{page.stem}_*.py"))
    assert scripts
    for path in scripts:
        assert call([path.name], project).strip()


def test_add_a_dataset(project: Path) -> None:
    zeroshot, coft = commands(DOCS / "howto" / "add-a-dataset.md")
    assert "a photo of a {}." in run(zeroshot, project)
    assert "after Phase II" in run(coft, project)
    runs = summaries(project, "signs")
    assert sorted(summary["trainer"] for summary in runs) == ["CoFT", "ZeroshotCLIP"]
    assert {summary["dataset"] for summary in runs} == {"Signs"}


def test_add_a_rival(project: Path) -> None:
    for command in commands(DOCS / "howto" / "add-a-rival.md"):
        assert "accuracy" in run(command, project)
    runs = summaries(project, "digits", "Probe")
    assert len(runs) == 2 and min(summary["results"]["accuracy_test"] for summary in runs) > 80
    assert all(summary["labels_used"] == 0 and summary["unlabeled"] == "training images" for summary in runs)
    heads = {path.read_bytes() for path in (project / "output" / "digits" / "Probe").rglob("model.safetensors")}
    assert len(heads) == 2  # the number of epochs has an effect


def test_new_values_of_settings(project: Path) -> None:
    """The commands of three pages, combined; each sets one key."""
    pages = ("add-a-filter", "add-a-light-module", "add-a-way-to-label")
    settings = [re.fullmatch(r"bash scripts/coft.sh digits (.+)", only_command(page)) for page in pages]
    command = " ".join(["bash scripts/coft.sh digits", *(match[1] for match in settings if match)])
    assert "after Phase II" in run(command, project)
    (summary,) = summaries(project, "digits", "CoFT")
    assert {"FILTER: softmatch", "VISUAL: bitfit", "CLASSIFY: clean"} <= set(
        map(str.strip, summary["config"].splitlines())
    )
