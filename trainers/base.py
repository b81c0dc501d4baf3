"""What every trainer of the project shares: a Dassl trainer is the adapter of a method.

Dassl has the loop, the checkpoints and the evaluation. The method has phases, optimizers and labels.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import torch
from torch import Tensor

from coft.backbones.backbone import ClassBackbone
from coft.backbones.load import fingerprint
from coft.backbones.prompts import NO_SYNONYMS
from coft.backbones.stages import hold_frozen_in_bf16
from coft.core import processes
from coft.core.errors import UserError
from coft.core.finite import check_models, check_predictions
from coft.core.precision import PREDICTIONS, step_attention
from coft.core.settings import load
from coft.core.timing import STEPS, Stopwatch, Waited
from coft.engine.backbone import forward_type, identity_of, load_backbone, precision_of
from coft.engine.class_names import class_list
from coft.images.batches import UnlabeledImages
from coft.method.protocol import Method, Runtime
from dassl.engine import TrainerX

from .building import backbone_of, check_choices, runtime_of
from .checkpoints import OF_CHECKPOINT, check_resumed, epoch_to_load, keep_identity, loads, readable
from .data import data_manager, reports_predictions, templates_in, unlabeled_of
from .ending import run_without_epochs, write_results
from .evaluation import Predicted, WorldEvaluator, part_of
from .recording import Recorder
from .reporting import report_predictions, write_test_predictions
from .sections import SECTIONS

log = logging.getLogger(__name__)


class MethodTrainer(TrainerX):
    """A Dassl trainer that runs a method on a frozen CLIP.

    Attributes:
        section: The trainer's section of the config.
        settings_class: What it declares; None where there is nothing to set.
        label_free: Whether the trainer reads no label; then the last epoch counts, not the best one.
        learns_from_labels: Whether it trains on labels.
        method: What it runs.
        clip_model: The frozen CLIP.
        images: The unlabeled images, of a label-free trainer.
        diagnostics: Numbers about pseudo-labels, for people to read.
        results: Accuracies in full precision for `summary.json`.
        clock: Seconds by part of the run.
    """

    section = ""
    settings_class: type | None = None
    label_free = False
    learns_from_labels = False
    method: Method
    clip_model: Any
    images: UnlabeledImages
    own: Any
    train_loader_x: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.section and cls.settings_class:
            SECTIONS[cls.section] = cls.settings_class

    def __init__(self, cfg: Any) -> None:
        self.results: dict[str, Any] = {}
        self.started, self.clock = time.monotonic(), Stopwatch("setting up")
        self.world = processes.world()
        self.pace, self.predicted = processes.Pace(self.world), Predicted(self.world)
        self.recorder: Recorder | None = None
        super().__init__(cfg)
        if not self.world.alone:
            self.evaluator = WorldEvaluator(self.evaluator, self.num_classes, self.world)

    # ---------------------------------------------------------------- what differs

    def make_method(self) -> Method:
        """Build the method, with `self.own` as its settings."""
        raise NotImplementedError

    @property
    def labels_used(self) -> int:
        """Number of images whose labels training reads."""
        return 0

    # ---------------------------------------------------------------- data

    def check_cfg(self, cfg: Any) -> None:
        """Refuse choices that cannot be, or that need labels; see `check_choices`."""
        check_choices(self, cfg)

    def check_fork(self, cfg: Any) -> None:
        """Refuse a run to fork from where the trainer can take nothing from it.

        Raises:
            UserError: Naming what is wrong with it.
        """
        raise UserError(f"TRAIN.FORK: {type(self).__name__} has no two phases; leave it empty")

    def build_data_loader(self) -> None:
        """Build Dassl's loaders; see `data_manager`."""
        dm = data_manager(self)
        self.train_loader_x, self.train_loader_u = dm.train_loader_x, dm.train_loader_u
        self.val_loader, self.test_loader = (part_of(own, self.world) for own in (dm.val_loader, dm.test_loader))
        self.num_classes, self.num_source_domains = dm.num_classes, dm.num_source_domains
        self.lab2cname, self.dm, self.classnames = dm.lab2cname, dm, list(dm.dataset.classnames)
        self.synonyms = getattr(dm.dataset, "synonyms", NO_SYNONYMS)
        self.templates = templates_in(dm.dataset, self.cfg.DATASET.NAME)
        if self.label_free:
            self.take_unlabeled()

    def take_unlabeled(self) -> None:
        """Take the training images without their labels; these go to the diagnostics alone."""
        self.images, self.diagnostics = unlabeled_of(self)

    # ---------------------------------------------------------------- building

    def build_model(self) -> None:
        """Build the method, and register its models."""
        section = f"TRAINER.{self.section}"
        self.own = load(self.settings_class, self.cfg.TRAINER[self.section], section) if self.settings_class else None
        dtype = forward_type(getattr(self.own, "prec", "fp32"), self.device, f"{section}.PREC")
        self.runtime = self.make_runtime(dtype)
        self.precision = PREDICTIONS if self.runtime.predicts_in_bf16 else precision_of(dtype)
        with processes.first_alone(self.world):  # which may have to download it
            self.clip_model = load_backbone(self.cfg, self.device)
        self.backbone_id = fingerprint(self.clip_model)
        if self.runtime.predicts_in_bf16:
            hold_frozen_in_bf16(self.clip_model.visual)
        self.method = self.make_method()
        self.max_epoch = self.method.epochs
        for name, model in self.method.models.items():
            self.register_model(name, model, self.method.optimizers.get(name), self.method.schedulers.get(name))

    def make_runtime(self, dtype: torch.dtype | None) -> Runtime:
        """Where and how the method computes."""
        # An attribute of the trainer's own: Dassl's checkpoints have the state of every scaler that they find there.
        self.scaler = torch.amp.GradScaler(self.device.type) if dtype is torch.float16 else None
        return runtime_of(self, dtype, self.scaler)

    def make_backbone(self) -> ClassBackbone:
        """The frozen CLIP with the classes of the data set."""
        return backbone_of(self)

    @property
    def identity(self) -> dict[str, str]:
        """What a checkpoint must share with this run to be loaded."""
        digest = self.images.digest if hasattr(self, "images") else ""
        return identity_of(self.cfg, self.backbone_id, class_list(self.classnames, self.synonyms), digest)

    # ---------------------------------------------------------------- the loop

    @readable
    def before_train(self) -> None:
        """Resume, or take the first epochs of another run, or begin."""
        super().before_train()
        self.start_epoch = self.start_epoch or self.forked()
        there = {"the epoch to go on with": self.start_epoch}
        processes.check_same(self.world, there, "choose an --output-dir on a disk that all machines share")
        if self.start_epoch:
            self.method.loaded()
        else:
            self.method.begin()

    def forked(self) -> int:
        """Take over what another run has trained, where TRAIN.FORK names one; how many epochs that were."""
        if self.cfg.TRAIN.FORK:
            self.check_fork(self.cfg)
        return 0

    @readable
    def before_epoch(self) -> None:
        """Let the method label and draw the batches."""
        self.train_loader_x = self.method.begin_epoch(self.epoch)
        for model in self.method.models.values():
            self.world.align(value for value in model.state_dict().values() if isinstance(value, Tensor))
        self.pace.lap(f"what comes before epoch {self.epoch + 1}")

    def run_epoch(self) -> None:
        """Run an epoch as Dassl does, by the clock."""
        loader, self.train_loader_x = self.train_loader_x, Waited(self.train_loader_x, self.clock)
        step, phase = self.method.step, self.method.phase(self.epoch)
        self.make_step = self.recorder.step_of(phase, step) if self.recorder else step
        attention = step_attention(self.clip_model.visual, self.device.type, self.runtime.dtype)
        try:
            with self.clock.part(STEPS), attention:
                super().run_epoch()
        finally:
            self.train_loader_x = loader
        self.pace.lap(f"the steps of epoch {self.epoch + 1}")

    def record_operations(self) -> None:
        """Record the operations of a few steps of each phase, to `profile.txt`."""
        self.recorder = Recorder(self.output_dir, self.world)
        self.runtime.run_in_turn()

    @readable
    def forward_backward(self, batch: Any) -> dict[str, float]:
        """Make a step of the method.

        Raises:
            UserError: If a loss is not finite.
        """
        try:
            return self.make_step(batch)
        except FloatingPointError as error:
            raise UserError(
                f"{error} in epoch {self.epoch + 1}, batch {self.batch_idx + 1}; lower the learning rate, or look for "
                f"images or settings that overflow"
            ) from error

    @readable
    def after_epoch(self) -> None:
        """End the epoch, and save."""
        check_models(self.method.models, f"epoch {self.epoch + 1}")
        self.method.end_epoch(self.epoch)
        self.epoch_ended()
        super().after_epoch()

    def epoch_ended(self) -> None:
        """Do what people want to see of an epoch, before it is saved."""

    def after_train(self) -> None:
        """Finish as Dassl does, then write the summary."""
        super().after_train()
        log.info(self.clock.in_words())
        write_results(self)

    def train(self) -> None:  # type: ignore[override]
        """Train as Dassl does. A method without epochs begins, is saved and evaluated."""
        if self.method.epochs:
            super().train()
        else:
            run_without_epochs(self)

    # ---------------------------------------------------------------- evaluation

    def model_inference(self, image: Tensor) -> Tensor:
        """Logits of images. Shape (n, C)."""
        logits = self.method.predict(image)
        check_predictions(logits)
        self.predicted.add(logits)
        return logits

    def test(self, split: str | None = None) -> float:
        """Evaluate as Dassl does, and remember the accuracy (percent) for the summary.

        A user's own images are predicted instead, for there may be no label to compare with.
        """
        with self.clock.part("evaluation"):
            if reports_predictions(self.dm.dataset):
                return report_predictions(self)
            self.predicted.forget()
            accuracy = float(super().test(split))
        split = split or self.cfg.TEST.SPLIT
        self.results[f"accuracy_{split}"] = accuracy
        if split == "test":
            write_test_predictions(self, {"end": self.predicted.of_all()})
        return accuracy

    def keep_evidence(self) -> None:
        """Keep what the report needs beside the tables."""

    # ---------------------------------------------------------------- checkpoints

    @loads("--model-dir")
    def load_model(self, directory: str | os.PathLike[str], epoch: int | None = None) -> None:
        """Load a checkpoint; see `epoch_to_load`."""
        super().load_model(directory, epoch=epoch_to_load(directory, epoch, self.get_model_names()))
        check_models(self.method.models, f"checkpoint in {directory}", OF_CHECKPOINT)
        self.method.loaded()

    @loads("--resume or --output-dir")
    def resume_model_if_exist(self, directory: str | os.PathLike[str]) -> int:
        """Resume as Dassl does; see `check_resumed`."""
        epoch = super().resume_model_if_exist(directory)
        check_resumed(self, directory, epoch)
        return epoch

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save as Dassl does, by the clock; one process does it for all."""
        with self.clock.part("saving"):
            if self.world.writes:
                super().save_model(*args, **kwargs)
                keep_identity(self)
            self.world.barrier()

    def keep_state(self) -> None:
        """Keep what another run needs to go on; likewise."""
        if self.world.writes:
            super().keep_state()
        self.world.barrier()

    def init_writer(self, log_dir: Any) -> None:
        """Begin to write for TensorBoard; likewise."""
        if not self.world.writes:
            return
        try:
            super().init_writer(log_dir)
        except UnicodeEncodeError:
            log.warning("%r: TensorBoard takes names in UTF-8 alone, so it gets no curves", str(log_dir))
