"""Base class of trainers: checkpoints of models, and the loop over epochs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from ..utils.checkpoints import BEST, POINTER, fit_module, load_checkpoint, resume_from_checkpoint, save_checkpoint
from ..utils.files import StrPath
from . import resume
from .models import Models


class TrainerBase(Models):
    """Loop over epochs, whose parts a trainer implements.

    Attributes:
        epoch: Current epoch, counted from 0.
        start_epoch: First epoch of this run; above 0 if it is resumed.
        max_epoch: Number of epochs.
        best_result: Best result on the validation set.
    """

    epoch: int
    start_epoch: int
    max_epoch: int
    best_result: float = -math.inf

    def __init__(self) -> None:
        super().__init__()
        self._writer: Any = None
        self._resumed: resume.State | None = None
        self._checkpointed: tuple[str, int] | None = None

    # ---- checkpoints

    def save_model(
        self,
        epoch: int,
        directory: StrPath,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Write a checkpoint of each model.

        Args:
            epoch: Finished epoch, counted from 0.
            directory: Output folder, with a sub-folder for each model.
            is_best: Whether to copy the checkpoint to `model-best.pth.tar`.
            val_result: Result on the validation set.
            model_name: File name; default: `model.pth.tar-<epoch + 1>`.
        """
        for name, saved in resume.model_states(self).items():
            state = {
                "state_dict": saved["state_dict"],
                "epoch": epoch + 1,
                "optimizer": saved["optimizer"],
                "scheduler": saved["scheduler"],
                "val_result": None if val_result is None else float(val_result),
            }
            save_checkpoint(state, Path(directory) / name, is_best=is_best, model_name=model_name)
        if not model_name:
            self._checkpointed = (str(directory), epoch + 1)

    def load_model(self, directory: StrPath, epoch: int | None = None) -> None:
        """Load the weights of each model.

        Args:
            directory: Folder that `save_model` wrote to; empty to load nothing.
            epoch: Epoch of the checkpoint, counted from 1; default: the best checkpoint.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            RuntimeError: If it does not match the model.
        """
        if not directory:
            print(
                "Note that load_model() is skipped as no pretrained "
                "model is given (ignore this if it's done on purpose)"
            )
            return
        file = BEST if epoch is None else f"model.pth.tar-{epoch}"
        paths = {name: Path(directory) / name / file for name in self.get_model_names()}
        for path in paths.values():
            if not path.exists():
                raise FileNotFoundError(f"No model at {path}")
        for name, path in paths.items():
            checkpoint = load_checkpoint(path)
            result = checkpoint.get("val_result")
            percent = "none" if result is None else f"{result:.1f}"
            print(f"Load {path} to {name} (epoch={checkpoint.get('epoch')}, val_result={percent})")
            self._models[name].load_state_dict(fit_module(checkpoint["state_dict"], self._models[name]))

    def resume_model_if_exist(self, directory: StrPath) -> int:
        """Restore models, optimizers, schedules and the rest of the state of a stopped run, if there is one.

        Args:
            directory: Output folder of the run.

        Returns:
            Epoch to continue with; 0 to start from scratch.

        Raises:
            RuntimeError: If a checkpoint does not match its model, or checkpoints are of different epochs.
        """
        folders = {name: Path(directory) / name for name in self.get_model_names()}
        complete = bool(folders) and all(folder.is_dir() for folder in folders.values())
        state = resume.read(directory) if complete else None
        if not state and not (complete and all((f / POINTER).is_file() for f in folders.values())):
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        if state:
            self._resumed = state
            return resume.restore(self, directory, state)
        return self._resume_plain(folders)

    def _resume_plain(self, folders: dict[str, Path]) -> int:
        """Resume from checkpoints without a state file, such as Dassl's own."""
        epochs = {
            name: resume_from_checkpoint(folder, self._models[name], self._optims[name], self._scheds[name])
            for name, folder in folders.items()
        }
        if len(set(epochs.values())) > 1:
            raise RuntimeError(
                f"checkpoints of different epochs ({epochs}): let the file `{POINTER}` of each model name the same one"
            )
        resume.restore_best(self, folders.values())
        return next(iter(epochs.values()))

    # ---- TensorBoard

    def init_writer(self, log_dir: StrPath) -> None:
        """Create the writer of scalars for TensorBoard."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            print(f"Initialize tensorboard (log_dir={log_dir})")
            self._writer = SummaryWriter(log_dir=str(log_dir))

    def close_writer(self) -> None:
        """Close the writer of scalars."""
        if self._writer is not None:
            self._writer.close()

    def write_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None) -> None:
        """Write a scalar, if there is a writer."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    # ---- the loop

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Train from one epoch to another; `before_train` may set a later start."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        if self._resumed:  # after before_train, which may draw random numbers
            resume.restore_generators(self, self._resumed)
            self._resumed = None
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
            self.keep_state()
        self.after_train()

    def before_train(self) -> None:
        """Called once before training."""

    def after_train(self) -> None:
        """Called once after training."""

    def before_epoch(self) -> None:
        """Called before each epoch."""

    def after_epoch(self) -> None:
        """Called after each epoch."""

    def keep_state(self) -> None:
        """Called at the very end of an epoch, to save the state from which another run continues to the same result."""

    def run_epoch(self) -> None:
        """Train for one epoch."""
        raise NotImplementedError

    def test(self, split: str | None = None) -> float:
        """Evaluate the model."""
        raise NotImplementedError

    def parse_batch_train(self, *args: Any, **kwargs: Any) -> Any:
        """Unpack a training batch. Arguments and return value are up to the plugin."""
        raise NotImplementedError

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Unpack a test batch into input and labels."""
        raise NotImplementedError

    def forward_backward(self, *args: Any, **kwargs: Any) -> Any:
        """Make one training step. Returns numbers to report, by name, or None."""
        raise NotImplementedError

    def model_inference(self, input: Tensor) -> Tensor:
        """Return the logits of images."""
        raise NotImplementedError
