"""A trainer with a config, data, an evaluator and an output folder."""

from __future__ import annotations

import datetime
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from ..data import DataManager
from ..evaluation import build_evaluator
from . import resume
from .base import TrainerBase
from .progress import progress_bar


class SimpleTrainer(TrainerBase):
    """A trainer without a model and a loop over batches, which subclasses add.

    Args:
        cfg: Config of the run.

    Attributes:
        cfg: Config of the run.
        device: CUDA if it is available and USE_CUDA is set, else the CPU.
        dm: Data manager, unless `build_data_loader` is overridden.
        train_loader_x: Loader of labelled images; may be replaced before an epoch.
        train_loader_u: Loader of unlabelled images, or None.
        val_loader: Loader of validation images, or None.
        test_loader: Loader of test images.
        num_classes: Number of classes.
        num_source_domains: Number of source domains.
        lab2cname: Class names by label.
        model: Model that `model_inference` calls.
    """

    dm: DataManager
    train_loader_x: DataLoader
    train_loader_u: DataLoader | None
    val_loader: DataLoader | None
    test_loader: DataLoader
    num_classes: int
    num_source_domains: int
    lab2cname: dict[int, str]
    model: Any

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.check_cfg(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = -math.inf

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check that the config fits the trainer; called before anything is built."""

    def build_data_loader(self) -> None:
        """Build the loaders. An override sets the same attributes, except that `dm` may be missing."""
        dm = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self) -> None:
        """Build and register the models."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to build its model (build_model)")

    def train(self) -> None:  # type: ignore[override]
        """Train to the end; a stopped run is resumed."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        """Resume a stopped run, if there is one, and create the TensorBoard writer."""
        self.start_epoch = self.resume_model_if_exist(self._resume_directory())
        self.init_writer(Path(self.output_dir) / "tensorboard")
        self.time_start = time.time()

    def _resume_directory(self) -> str:
        """Return RESUME, or the output folder if RESUME is empty or a run resumed from it has saved a state there."""
        if not self.cfg.RESUME:
            return self.output_dir
        state = resume.read(self.output_dir)
        return self.output_dir if state and state["resumed_from"] == self.cfg.RESUME else self.cfg.RESUME

    def after_epoch(self) -> None:
        """Save the best model, if TEST.FINAL_MODEL is "best_val", and write checkpoints when they are due."""
        options, done = self.cfg, self.epoch + 1
        if not options.TEST.NO_TEST and options.TEST.FINAL_MODEL == "best_val":
            self._keep_best(self.test(split="val"))
        frequency = options.TRAIN.CHECKPOINT_FREQ
        if done == self.max_epoch or (frequency > 0 and done % frequency == 0):
            self.save_model(self.epoch, self.output_dir)

    def _keep_best(self, result: float) -> None:
        if result > self.best_result:
            self.best_result = result
            self.save_model(self.epoch, self.output_dir, val_result=result, model_name="model-best.pth.tar")

    def keep_state(self) -> None:
        """Write the state from which the run can be resumed."""
        resume.write(self, self.output_dir, resumed_from=self.cfg.RESUME)

    def after_train(self) -> None:
        """Evaluate the final model."""
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            self.test()
        print(f"Elapsed: {datetime.timedelta(seconds=round(time.time() - self.time_start))}")
        self.close_writer()

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate the model.

        Args:
            split: "test" or "val"; default: TEST.SPLIT. Without validation images, the test images are used.

        Returns:
            First result of the evaluator: accuracy in percent.
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        loader = self.val_loader if split == "val" else None
        if loader is None:
            split, loader = "test", self.test_loader
        print(f"Evaluate on the *{split}* set")
        with progress_bar(loader, split, len(loader)) as batches:
            for batch in batches:
                input, label = self.parse_batch_test(batch)
                self.evaluator.process(self.model_inference(input), label)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        return next(iter(results.values()))

    def model_inference(self, input: Tensor) -> Tensor:
        """Return the logits of images. Shape (B, C)."""
        return self.model(input)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return images and labels of a batch, on the trainer's device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)
