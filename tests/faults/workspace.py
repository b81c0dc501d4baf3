"""Workspace of a case: its own folder, and files that all cases share: a tiny CLIP, images, a finished run."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import train
import trainers
from coft.cli.main import main as coft
from tests.conftest import draw, make_clip
from trainers.config import make_cfg

from .verdict import WrongResult, check_exit

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534  # user id without any rights
CLASSES = "red circle, green square, blue stripes"
QUICK = [
    *("TRAINER.COFT.SEEDS_PER_CLASS", "2", "TRAINER.COFT.PHASE1.EPOCHS", "1", "TRAINER.COFT.PHASE1.MIN_STEPS", "2"),
    *("TRAINER.COFT.PHASE2.EPOCHS", "1", "DATALOADER.NUM_WORKERS", "0"),
    *("OPTIM.NAME", "sgd", "OPTIM.LR", "0.01", "TRAIN.GUARD", "False", "TRAIN.EVAL_FREQ", "0"),
]


def call(main: Callable[[Sequence[str]], int], *argv: object) -> None:
    """Call a command in this process, and check how it ends."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            code = main([str(argument) for argument in argv])
    finally:
        sys.stderr.write(errors.getvalue())
    check_exit(code, errors.getvalue())


class Workspace:
    """Folder of a case, and the shared files.

    Args:
        shared: Folder of the shared files; each is made when first used.
        folder: Empty folder of the case.
    """

    def __init__(self, shared: Path, folder: Path) -> None:
        self.shared, self.folder = shared, folder

    def write(self, name: str | Path, content: bytes | str = b"") -> Path:
        """Write a file of the case."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    @cached_property
    def clip(self) -> Path:
        """The state dict of a tiny CLIP."""
        path = self.shared / "clip.pt"
        if not path.is_file():
            torch.save(make_clip(vit=False).state_dict(), path)
        return path

    @cached_property
    def images(self) -> Path:
        """A folder of twelve images, four of each class."""
        folder = self.shared / "images"
        if not folder.is_dir():
            folder.mkdir()
            for number in range(12):
                Image.fromarray(draw(number % 3, np.random.default_rng(number))).save(folder / f"{number}.png")
        return folder

    @cached_property
    def run(self) -> Path:
        """The output folder of a finished run; read-only by convention."""
        folder = self.shared / "run"
        return folder if (folder / "summary.json").is_file() else self.train(out=folder)

    def copy_images(self) -> Path:
        """Copy the images, so that the case can change them."""
        return Path(shutil.copytree(self.images, self.folder / "photos"))

    def copy_run(self) -> Path:
        """Copy the finished run, so that the case can damage it."""
        return Path(shutil.copytree(self.run, self.folder / "run"))

    def arguments(
        self,
        *flags: str,
        settings: Sequence[str] = (),
        images: Path | None = None,
        classes: str = CLASSES,
        out: Path | None = None,
    ) -> list[str]:
        """Return the arguments of train.py for a small run; `flags` and `settings` override the defaults."""
        base = ["--trainer=CoFT", "--seed=1", f"--backbone={self.clip}", f"--output-dir={out or self.folder / 'out'}"]
        data = ["DATASET.NAME", "Folder", "DATASET.IMAGES", repr(str(images or self.images))]
        return [*base, *flags, *data, "DATASET.CLASSES", repr(classes), *QUICK, *settings]

    def make_config(self, *flags: str, **options: Any) -> None:
        """Make the config of a run; see `arguments`."""
        make_cfg(train.make_parser().parse_args(self.arguments(*flags, **options)), trainers.extend_cfg)

    def read_config(self, path: Path) -> None:
        """Make the config of a run with a config file."""
        self.make_config("--config-file", str(path))

    def train(self, *flags: str, out: Path | None = None, **options: Any) -> Path:
        """Do a small run in this process, and check that its predictions are finite. Returns its output folder."""
        call(train.main, *self.arguments(*flags, out=out, **options))
        folder = out or self.folder / "out"
        if (predictions := folder / "predictions.csv").is_file():
            with predictions.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                cells = {cell.lower() for row in csv.reader(file) for cell in row[1:]}
            if cells & {"nan", "inf", "-inf", ""}:
                raise WrongResult("predictions.csv contains non-finite or empty cells")
        return folder

    def predict(self, run: Path, *arguments: object) -> bytes:
        """Return the output of `coft predict`, by default for the shared images."""
        output = self.folder / "predicted.csv"
        call(coft, "predict", run, *(arguments or (self.images,)), "--output", output)
        return output.read_bytes()

    def start(
        self,
        *flags: str,
        environment: Mapping[str, str | None] | None = None,
        popen: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a small run as a process; see `arguments`. Variables of `environment` that are None are unset."""
        fixed = {"DASSL_PROGRESS": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        fixed["MPLCONFIGDIR"] = str(self.shared / "matplotlib")  # not in the project, with a relative cache folder
        variables = {**os.environ, **fixed, **(environment or {})}
        defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
        defaults["env"] = {name: value for name, value in variables.items() if value is not None}
        command = [sys.executable, "train.py", *self.arguments(*flags, **options)]
        return subprocess.Popen(command, **{**defaults, **(popen or {})})

    @contextlib.contextmanager
    def as_nobody(self) -> Iterator[None]:
        """Context in which file permissions apply even if the user is root."""
        user = os.geteuid()
        for folder in (self.shared, self.folder):
            folder.chmod(0o777)
        if not user:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(user)
