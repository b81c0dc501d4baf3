"""Where a case plays: a folder of its own, and what all cases share: a tiny CLIP, images, a finished run."""

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
from clip.model import CLIP
from PIL import Image

import train
import trainers
from coft.cli.main import main as coft
from trainers.config import make_cfg

from .oracle import Wrong, check_outcome

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534  # the user who owns nothing
CLASSES = "red circle, green square, blue stripes"
QUICK = [
    *("TRAINER.COFT.SEEDS_PER_CLASS", "2", "TRAINER.COFT.PHASE1.EPOCHS", "1", "TRAINER.COFT.PHASE1.MIN_STEPS", "2"),
    *("TRAINER.COFT.PHASE2.EPOCHS", "1", "DATALOADER.NUM_WORKERS", "0"),
    *("OPTIM.NAME", "sgd", "OPTIM.LR", "0.01", "TRAIN.GUARD", "False", "TRAIN.EVAL_FREQ", "0"),
]


def tiny_clip() -> CLIP:
    """A CLIP with random weights, 32 pixels and 32 dimensions, which tells images apart."""
    torch.manual_seed(0)
    model = CLIP(32, 32, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 2)
    with torch.no_grad():
        for _ in range(20):  # gives its batch norms statistics
            model.visual(torch.randn(32, 3, 32, 32) + torch.randn(32, 3, 1, 1))
    return model.eval()


def call(main: Callable[[Sequence[str]], int], *argv: object) -> None:
    """Call a command of the project in this process; see `check_outcome` for what it raises."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            code = main([str(word) for word in argv])
    finally:
        sys.stderr.write(errors.getvalue())
    check_outcome(code, errors.getvalue())


class Scene:
    """A folder for a case, and what all cases share.

    Args:
        shared: Folder of what is shared; each thing is made at its first use.
        place: Folder of the case, empty.
    """

    def __init__(self, shared: Path, place: Path) -> None:
        self.shared, self.place = shared, place

    def file(self, name: str, content: bytes | str) -> Path:
        """Write a file of the case."""
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    @cached_property
    def clip(self) -> Path:
        """The state dict of a tiny CLIP."""
        path = self.shared / "clip.pt"
        if not path.is_file():
            torch.save(tiny_clip().state_dict(), path)
        return path

    @cached_property
    def images(self) -> Path:
        """A folder of twelve images, four of each class."""
        folder = self.shared / "images"
        if not folder.is_dir():
            folder.mkdir()
            random = np.random.default_rng(0)
            for number in range(12):
                pixels = random.normal(90, 30, (32, 32, 3))
                pixels[8:24, 8:24, number % 3] += 120
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        return folder

    @cached_property
    def run(self) -> Path:
        """The output folder of a finished run; not to be changed."""
        folder = self.shared / "run"
        return folder if (folder / "summary.json").is_file() else self.train(out=folder)

    def copied_images(self) -> Path:
        """Images for the case to change."""
        return Path(shutil.copytree(self.images, self.place / "photos"))

    def copied_run(self) -> Path:
        """A finished run for the case to damage."""
        return Path(shutil.copytree(self.run, self.place / "run"))

    def arguments(
        self,
        *flags: str,
        settings: Sequence[str] = (),
        images: Path | None = None,
        classes: str = CLASSES,
        out: Path | None = None,
    ) -> list[str]:
        """Arguments of train.py for a small run; flags and settings take the place of those here."""
        base = ["--trainer=CoFT", "--seed=1", f"--backbone={self.clip}", f"--output-dir={out or self.place / 'out'}"]
        data = ["DATASET.NAME", "Folder", "DATASET.IMAGES", repr(str(images or self.images))]
        return [*base, *flags, *data, "DATASET.CLASSES", repr(classes), *QUICK, *settings]

    def config(self, *flags: str, file: Path | None = None, **options: Any) -> None:
        """Make the config of a run, with a config file if one is given; see `arguments`."""
        flags += ("--config-file", str(file)) if file else ()
        make_cfg(train.make_parser().parse_args(self.arguments(*flags, **options)), trainers.extend_cfg)

    def train(self, *flags: str, out: Path | None = None, **options: Any) -> Path:
        """Do a small run in this process; see `arguments`. Returns its output folder, whose predictions are numbers."""
        call(train.main, *self.arguments(*flags, out=out, **options))
        folder = out or self.place / "out"
        if (predictions := folder / "predictions.csv").is_file():
            with predictions.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                cells = {cell.lower() for row in csv.reader(file) for cell in row[1:]}
            if cells & {"nan", "inf", "-inf", ""}:
                raise Wrong("predictions.csv has numbers that are none")
        return folder

    def predict(self, run: Path, *words: object) -> bytes:
        """What `coft predict` writes of images; without words, of those here."""
        output = self.place / "predicted.csv"
        call(coft, "predict", run, *(words or (self.images,)), "--output", output)
        return output.read_bytes()

    def process(
        self, *flags: str, environment: Mapping[str, str | None] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Begin a small run as a process; options are those of `arguments`, and of Popen in `started`.

        Variables of `environment` that are None are not set.
        """
        started = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options.pop("started", {})}
        fixed = {"DASSL_PROGRESS": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        variables = {**os.environ, **fixed, **(environment or {})}
        started["env"] = {name: value for name, value in variables.items() if value is not None}
        return subprocess.Popen([sys.executable, "train.py", *self.arguments(*flags, **options)], cwd=ROOT, **started)

    @contextlib.contextmanager
    def as_nobody(self) -> Iterator[None]:
        """Context in which permissions hold for this process: root may read all."""
        user = os.geteuid()
        for folder in (self.shared, self.place):
            folder.chmod(0o777)
        if not user:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(user)
