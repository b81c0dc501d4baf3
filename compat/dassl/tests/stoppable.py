"""A run that kills its own process, for `test_resume.py`.

    python stoppable.py ROOT OUTPUT WORKERS EPOCH:BATCH|EPOCH:end|""

It uses all sources of randomness: dropout, transforms in loader workers, the global generators of Python, NumPy and
PyTorch, and a loader that is replaced before each epoch; also an adaptive gradient scaler.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import set_random_seed, setup_logger
from toys import ToyX, make_cfg

OPTIONS = {
    "SEED": 0,
    "INPUT.TRANSFORMS": ("random_resized_crop", "random_flip", "randaugment", "colorjitter", "cutout", "normalize"),
    "OPTIM.MAX_EPOCH": 4,
    "OPTIM.WARMUP_EPOCH": 2,
    "OPTIM.WARMUP_TYPE": "linear",
    "TRAIN.CHECKPOINT_FREQ": 3,
    "TEST.FINAL_MODEL": "best_val",
}


@TRAINER_REGISTRY.register()
class Stoppable(ToyX):
    """Toy trainer that kills its process at a given batch, or at the end of an epoch."""

    stop_at = ""

    def build_model(self) -> None:
        super().build_model()
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)

    def before_epoch(self) -> None:
        self.train_loader_x = build_data_loader(
            self.cfg,
            sampler_type="RandomSampler",
            data_source=self.dm.dataset.train_x,
            batch_size=8,
            tfm=build_transform(self.cfg),
        )

    def learn(self, image: Tensor, label: Tensor) -> dict[str, float]:
        self.stop_if_due(f"{self.epoch}:{self.batch_idx}")
        report = super().learn(image, label)
        loss = F.cross_entropy(self.first(image), label) * 0.1
        self._optims["first"].zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self._optims["first"])
        self.scaler.update()
        return {**report, "scale": self.scaler.get_scale()}

    def after_epoch(self) -> None:
        super().after_epoch()
        self.stop_if_due(f"{self.epoch}:end")

    def stop_if_due(self, position: str) -> None:
        if position == self.stop_at:
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def main(root: str, output: str, workers: str, stop_at: str) -> None:
    """Train, or resume."""
    torch.set_num_threads(1)
    options = {**OPTIONS, "DATALOADER.NUM_WORKERS": int(workers)}
    cfg = make_cfg(Path(root), Path(output), *(x for pair in options.items() for x in pair), trainer="Stoppable")
    setup_logger(cfg.OUTPUT_DIR)
    set_random_seed(cfg.SEED)
    Stoppable.stop_at = stop_at
    build_trainer(cfg).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
