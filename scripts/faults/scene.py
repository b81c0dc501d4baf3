"""Where cases play: a folder of their own, and material that all share: a tiny CLIP, images, a finished run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clip.model import CLIP
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CLASSES = "red circle, green square, blue stripes"
SECRET = "sk-never-to-be-shown"  # in the environment of all cases
QUICK = [
    *("TRAINER.COFT.SEEDS_PER_CLASS", "2", "TRAINER.COFT.PHASE1.EPOCHS", "1", "TRAINER.COFT.PHASE1.MIN_STEPS", "2"),
    *("TRAINER.COFT.PHASE2.EPOCHS", "1", "TRAINER.COFT.PHASE2.REFRESH", "1", "DATALOADER.NUM_WORKERS", "0"),
    *("OPTIM.NAME", "sgd", "OPTIM.LR", "0.01", "TRAIN.GUARD", "False", "TRAIN.EVAL_FREQ", "0"),
]


def tiny_clip() -> CLIP:
    """A CLIP with random weights: 32 pixels, 32 dimensions."""
    torch.manual_seed(0)
    return CLIP(32, 32, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 2).eval()


class Scene:
    """A folder for a case, and what all cases share.

    Args:
        shared: Folder of the material; made at its first use.
        place: Folder of the case, empty.
    """

    def __init__(self, shared: Path, place: Path) -> None:
        self.shared, self.place = shared, place

    def file(self, name: str, content: bytes | str) -> Path:
        """Write a file of the case."""
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)
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
        if not (folder / "summary.json").is_file():
            self.train("--output-dir", str(folder))
        return folder

    def copied_run(self) -> Path:
        """The same, for a case to damage."""
        return Path(shutil.copytree(self.run, self.place / "run"))

    def arguments(
        self, *flags: str, settings: Sequence[str] = (), images: Path | None = None, classes: str = CLASSES
    ) -> list[str]:
        """Arguments of train.py for a small run.

        Args:
            *flags: More flags; they take the place of those here.
            settings: More settings, likewise.
            images: Folder of images.
            classes: Names.
        """
        base = [
            "--trainer",
            "CoFT",
            "--seed",
            "1",
            "--backbone",
            str(self.clip),
            "--output-dir",
            str(self.place / "out"),
        ]
        own = ["DATASET.NAME", "Folder", "DATASET.IMAGES", repr(str(images or self.images))]
        return [*base, *flags, *own, "DATASET.CLASSES", repr(classes), *QUICK, *settings]

    def train(self, *flags: str, **options: Any) -> Path:
        """Do a small run in this process; see `arguments`. Returns its output folder."""
        import train

        args = train.make_parser().parse_args(self.arguments(*flags, **options))
        train.run(args)
        return Path(args.output_dir)

    def config(self, *flags: str, **options: Any) -> Any:
        """The config of a run; see `arguments`."""
        import train
        import trainers
        from trainers.config import make_cfg

        return make_cfg(train.make_parser().parse_args(self.arguments(*flags, **options)), trainers.extend_cfg)

    def process(
        self,
        *flags: str,
        started: Mapping[str, Any] | None = None,
        environment: Mapping[str, str | None] | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Begin a small run as a process of its own; see `arguments`.

        Args:
            *flags: More flags.
            started: Options of Popen.
            environment: Variables that are others than here; None: not set.
            **options: As of `arguments`.
        """
        command = [sys.executable, "train.py", *self.arguments(*flags, **options)]
        own: dict[str, str | None] = {"DASSL_PROGRESS": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        variables = {**os.environ, **own, **(environment or {})}
        present = {name: value for name, value in variables.items() if value is not None}
        options_of: dict[str, Any] = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **(started or {}),
        }
        return subprocess.Popen(command, cwd=ROOT, env=present, **options_of)
