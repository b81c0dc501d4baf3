"""Calling conventions of plugins' scripts: CoOp's, which many plugins share, and UPL's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .material import NARROW, SIZE, WIDE
from .process import Host

Trainers = dict[str, bool]  # by name: whether the trainer trains something


class CoOpStyle:
    """A plugin with CoOp's `train.py`. Runs use the plugin's own configs, with settings for short runs.

    Args:
        host: Host that runs its scripts.
    """

    script = "train.py"
    epochs = 3
    shots = 2
    settings: Mapping[str, str] = {}

    def __init__(self, host: Host) -> None:
        self.host = host

    def trainers(self) -> Trainers:
        """Return the trainers of the script."""
        return dict(json.loads(self.host.run(self.script, action="trainers").splitlines()[-1]))

    def train(self, trainer: str, output: Path, kill_at: str = "") -> str:
        """Train, resuming from the last checkpoint if there is one. Returns the output."""
        return self.host.run(self.script, self._arguments(trainer, output), kill_at=kill_at)

    def evaluate(self, trainer: str, output: Path, trained: Path | None = None) -> str:
        """Evaluate a trained model, or one that needs no training. Returns the output."""
        model = ["--model-dir", str(trained), "--load-epoch", str(self.epochs)] if trained else []
        return self.host.run(self.script, ["--eval-only", *model, *self._arguments(trainer, output)])

    def _arguments(self, trainer: str, output: Path) -> list[str]:
        wide = trainer == "MaPLe"
        arguments = ["--root", "data", "--seed", "1", "--trainer", trainer, "--output-dir", str(output)]
        arguments += ["--backbone", WIDE if wide else NARROW]
        for config in sorted((self.host.checkout / "configs" / "trainers" / trainer).glob("*.yaml"))[:1]:
            arguments += ["--config-file", str(config)]
        settings = {
            "DATASET.NAME": "Digits",
            "DATASET.NUM_SHOTS": self.shots,
            "INPUT.SIZE": f"({SIZE}, {SIZE})",
            "DATALOADER.NUM_WORKERS": 0,
            "DATALOADER.TRAIN_X.BATCH_SIZE": 10 if wide else 4,  # larger batches for fewer steps, which are slow
            "OPTIM.MAX_EPOCH": self.epochs,
            "TRAIN.PRINT_FREQ": 1,
            "TRAIN.CHECKPOINT_FREQ": 1,
            **self.settings,
        }
        return arguments + [str(word) for pair in settings.items() for word in pair]


class UplStyle(CoOpStyle):
    """UPL: `get_info.py` labels images, `upl_train.py` trains, and `upl_test.py` evaluates runs of 50 epochs."""

    script = "upl_train.py"
    epochs = 50
    shots = 16
    settings: Mapping[str, str] = {"MODEL.PSEUDO_LABEL_MODELS": f"['{NARROW.replace('/', '-')}']"}

    def trainers(self) -> Trainers:
        """Return UPL's own trainer, the only one that its scripts call."""
        return {name: trains for name, trains in super().trainers().items() if name == "UPLTrainer"}

    def train(self, trainer: str, output: Path, kill_at: str = "") -> str:
        """Label the images, then train. Returns the output."""
        self.host.run("get_info.py", self._arguments(trainer, output.with_name("labels")))
        return super().train(trainer, output, kill_at)

    def evaluate(self, trainer: str, output: Path, trained: Path | None = None) -> str:
        """Evaluate a trained model. Returns the output."""
        return self.host.run("upl_test.py", ["--model-dir", str(trained), *self._arguments(trainer, output)])


STYLES: tuple[type[CoOpStyle], ...] = (UplStyle, CoOpStyle)


def style_of(checkout: Path) -> type[CoOpStyle] | None:
    """Return the calling convention of a checkout's scripts; None if it is unknown."""
    return next((style for style in STYLES if (checkout / style.script).is_file()), None)
