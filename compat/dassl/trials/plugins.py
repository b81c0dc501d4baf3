"""How the scripts of others' plugins are called: CoOp's and its many descendants', and UPL's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .material import NARROW, SIZE, WIDE
from .process import Host

Trainers = dict[str, bool]  # name: whether there is something to train


class CoOpStyle:
    """A plugin with CoOp's `train.py`. Configs are the plugin's own, shortened.

    Args:
        host: Runs its scripts.
    """

    script = "train.py"
    epochs = 3
    shots = 2
    settings: Mapping[str, str] = {}

    def __init__(self, host: Host) -> None:
        self.host = host

    def trainers(self) -> Trainers:
        """List the trainers that the script knows."""
        return dict(json.loads(self.host.run(self.script, action="trainers").splitlines()[-1]))

    def train(self, trainer: str, output: Path, kill_at: str = "") -> str:
        """Train, from the last checkpoint if there is one."""
        return self.host.run(self.script, self._arguments(trainer, output), kill_at=kill_at)

    def evaluate(self, trainer: str, output: Path, trained: Path | None = None) -> str:
        """Evaluate what was trained, or what needs no training."""
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
            "DATALOADER.TRAIN_X.BATCH_SIZE": 10 if wide else 4,  # few steps where each takes long
            "OPTIM.MAX_EPOCH": self.epochs,
            "TRAIN.PRINT_FREQ": 1,
            "TRAIN.CHECKPOINT_FREQ": 1,
            **self.settings,
        }
        return arguments + [str(word) for pair in settings.items() for word in pair]


class UplStyle(CoOpStyle):
    """UPL: `get_info.py` labels images, `upl_train.py` trains, and `upl_test.py` reads what runs of 50 epochs left."""

    script = "upl_train.py"
    epochs = 50
    shots = 16
    settings: Mapping[str, str] = {"MODEL.PSEUDO_LABEL_MODELS": f"['{NARROW.replace('/', '-')}']"}

    def trainers(self) -> Trainers:
        """UPL's own trainer; its scripts call no other."""
        return {name: trains for name, trains in super().trainers().items() if name == "UPLTrainer"}

    def train(self, trainer: str, output: Path, kill_at: str = "") -> str:
        """Label, then train."""
        self.host.run("get_info.py", self._arguments(trainer, output.with_name("labels")))
        return super().train(trainer, output, kill_at)

    def evaluate(self, trainer: str, output: Path, trained: Path | None = None) -> str:
        """Evaluate what was trained."""
        return self.host.run("upl_test.py", ["--model-dir", str(trained), *self._arguments(trainer, output)])


STYLES: tuple[type[CoOpStyle], ...] = (UplStyle, CoOpStyle)


def style_of(checkout: Path) -> type[CoOpStyle] | None:
    """The way in which a checkout's scripts are called; None if it has none that we know."""
    return next((style for style in STYLES if (checkout / style.script).is_file()), None)
