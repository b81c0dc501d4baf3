"""What every trainer of the project shares: a Dassl trainer is the adapter of a method.

Dassl has the loop, the checkpoints and the evaluation. The method has phases, optimizers and labels.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coft.backbones.backbone import ClassBackbone
from coft.backbones.load import fingerprint
from coft.backbones.prompts import NO_SYNONYMS, Synonyms, all_names
from coft.backbones.stages import hold_frozen_in_bf16
from coft.backbones.unseen import warn_of_unseen
from coft.images.batches import UnlabeledImages
from coft.method.protocol import Method, Runtime
from coft.report.write import write_report
from coft.run.backbone import check_light_module, forward_type, identity_of, load_backbone, precision_of
from coft.run.classes import class_list
from coft.run.images import unlabeled_images
from coft.runtime import processes
from coft.runtime.disk_tables import tables_in
from coft.runtime.errors import UserError
from coft.runtime.finite import DIVERGED, check_models, check_predictions
from coft.runtime.precision import PREDICTIONS, step_attention
from coft.runtime.settings import load
from coft.runtime.timing import STEPS, Stopwatch, Waited, profiled
from dassl.data import DataManager
from dassl.engine import TrainerX
from datasets.templates import templates_of

from .checkpoints import last_epoch, loads, readable
from .data import diagnostics_of, unlabeled_data
from .described import described_text
from .evaluation import WorldEvaluator, part_of
from .finished import write_model
from .labeled_images import LabeledImages
from .reporting import report_predictions, write_summary, write_test_predictions
from .sections import SECTIONS

log = logging.getLogger(__name__)
OF_CHECKPOINT = "give another checkpoint, or train again with a lower OPTIM.LR"


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
        self.predicted = list[Tensor]()  # classes of test images, in their order
        self.started, self.clock = time.monotonic(), Stopwatch("setting up")
        self.world = processes.world()
        self.pace = processes.Pace(self.world)
        self.profile, self.profiled_steps = False, dict[int, Callable[[Any], Any]]()
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
        """Refuse a light module that is not there, and to choose the best epoch by labels where none is to be read.

        Raises:
            UserError: Naming the key.
        """
        module = cfg.TRAINER[self.section].get("VISUAL", "auto") if self.section else "auto"
        check_light_module(module, f"TRAINER.{self.section}.VISUAL")
        if self.label_free and cfg.TEST.FINAL_MODEL != "last_step":
            raise UserError(
                f"TEST.FINAL_MODEL is {cfg.TEST.FINAL_MODEL!r}, which chooses an epoch by labels; "
                f"{type(self).__name__} reads none: leave it at last_step"
            )

    def build_data_loader(self) -> None:
        """Build Dassl's loaders on a reader that names an image it cannot read.

        Raises:
            UserError: If the trainer learns from labels, and the data set is a user's own images.
        """
        with processes.first_alone(self.world):  # which may have to unpack or draw the images
            dm = DataManager(self.cfg, dataset_wrapper=LabeledImages)
        if self.learns_from_labels and getattr(dm.dataset, "reports_predictions", False):
            raise UserError(
                f"{type(self).__name__} learns from labels, and your own images have none: use a label-free trainer, "
                f"such as CoFT (names of folders serve the evaluation only)"
            )
        self.train_loader_x, self.train_loader_u = dm.train_loader_x, dm.train_loader_u
        self.val_loader, self.test_loader = (part_of(own, self.world) for own in (dm.val_loader, dm.test_loader))
        self.num_classes, self.num_source_domains = dm.num_classes, dm.num_source_domains
        self.lab2cname, self.dm = dm.lab2cname, dm
        if self.label_free:
            self.take_unlabeled()

    def take_unlabeled(self) -> None:
        """Take the training images without their labels; these go to the diagnostics alone."""
        data = unlabeled_data(self.cfg, self.dm.dataset, type(self).__name__)
        hashes = getattr(self.dm.dataset, "content_hashes", None)
        self.images = self.read_images([item.impath for item in data], hashes)
        log.info("Unlabeled images: %d, the %s", len(self.images), self.unlabeled_part)
        self.diagnostics = diagnostics_of(self.images, data)

    def read_images(self, paths: Sequence[str], hashes: Mapping[str, str] | None = None) -> UnlabeledImages:
        """Take images in the order of their content; see `unlabeled_images`.

        Raises:
            UserError: If processes have different files.
        """
        names = hashlib.sha256("\n".join(Path(path).name for path in paths).encode(errors="surrogateescape"))
        seen = {"the list of image files (its hash)": names.hexdigest()[:16], "their number": len(paths)}
        processes.check_same(self.world, seen, "all machines need the same images under DATASET.ROOT")
        return unlabeled_images(self.cfg, paths, hashes, world=self.world)

    @property
    def classnames(self) -> list[str]:
        """Declared class names, by label."""
        return list(self.dm.dataset.classnames)

    @property
    def synonyms(self) -> Synonyms:
        """Other names of classes, by class name; of a user's own images alone."""
        return getattr(self.dm.dataset, "synonyms", NO_SYNONYMS)

    @property
    def templates(self) -> tuple[str, ...]:
        """Templates of the data set; its own may depend on which part of it was chosen."""
        return tuple(getattr(self.dm.dataset, "templates", ())) or templates_of(self.cfg.DATASET.NAME)

    @property
    def unlabeled_part(self) -> str:
        """What the unlabeled images are, in words."""
        return getattr(self.dm.dataset, "unlabeled_part", "training images")

    @property
    def labels_known(self) -> bool:
        """Whether a test image has a label."""
        return any(item.label >= 0 for item in self.dm.dataset.test)

    # ---------------------------------------------------------------- building

    def build_model(self) -> None:
        """Build the method, and register its models."""
        section = f"TRAINER.{self.section}"
        self.own = load(self.settings_class, self.cfg.TRAINER[self.section], section) if self.settings_class else None
        dtype = forward_type(getattr(self.own, "prec", "fp32"), self.device, f"{section}.PREC")
        self.runtime = self.make_runtime(dtype)
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
        return Runtime(
            self.cfg.SEED,
            self.device,
            dtype,
            scaler=self.scaler,
            predicts_in_bf16=getattr(self.own, "prec", "") == PREDICTIONS,
            micro_batch=self.cfg.TRAIN.MICRO_BATCH,
            compiler=self.cfg.TRAIN.COMPILE,
            allocate=tables_in(self.cfg.OUTPUT_DIR),
            timed=self.clock.part,
            guard=self.cfg.TRAIN.GUARD,
            world=self.world,
        )

    def make_backbone(self) -> ClassBackbone:
        """The frozen CLIP with the classes of the data set."""
        warn_of_unseen(self.cfg.MODEL.BACKBONE.NAME, all_names(self.classnames, self.synonyms)[0])
        return ClassBackbone(
            self.clip_model,
            self.classnames,
            self.templates,
            self.identity,
            lambda templates: described_text(self, templates),
            self.runtime.allocate,
            self.runtime.predicts_in_bf16,
            self.synonyms,
            self.world,
        )

    @property
    def identity(self) -> dict[str, str]:
        """What a checkpoint must share with this run to be loaded."""
        digest = self.images.digest if hasattr(self, "images") else ""
        return identity_of(self.cfg, self.backbone_id, class_list(self.classnames, self.synonyms), digest)

    @property
    def precision(self) -> str:
        """Of the forward pass, by name."""
        return PREDICTIONS if self.runtime.predicts_in_bf16 else precision_of(self.runtime.dtype)

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
        """Take over what another run has trained, where TRAIN.FORK names one.

        Returns:
            How many epochs that were.

        Raises:
            UserError: If there is nothing of that kind in this trainer.
        """
        if self.cfg.TRAIN.FORK:
            raise UserError(f"TRAIN.FORK: {type(self).__name__} has no two phases; leave it empty")
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
        self.make_step = self.step_of_epoch()
        attention = step_attention(self.clip_model.visual, self.device.type, self.runtime.dtype)
        try:
            with self.clock.part(STEPS), attention:
                super().run_epoch()
        finally:
            self.train_loader_x = loader
        self.pace.lap(f"the steps of epoch {self.epoch + 1}")

    def step_of_epoch(self) -> Callable[[Any], Any]:
        """What makes a step with a batch; if asked for, it records the operations of a few steps of each phase."""
        phase = self.method.phase(self.epoch)
        if not self.profile:
            return self.method.step
        if phase not in self.profiled_steps:  # kept, for an epoch may have too few steps to be recorded
            self.profiled_steps[phase] = profiled(self.method.step, f"Phase {phase}", self.report_profile)
        return self.profiled_steps[phase]

    def record_operations(self) -> None:
        """Record the operations of a few steps of each phase, to `profile.txt`."""
        self.profile = True
        self.runtime.run_in_turn()

    def report_profile(self, table: str) -> None:
        """Show a table of operations, and append it to `profile.txt`."""
        if not self.world.writes:
            return
        print(table)
        with (Path(self.output_dir) / "profile.txt").open("a", encoding="utf-8") as file:
            file.write(f"{table}\n")

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
        self.check_weights(f"epoch {self.epoch + 1}", DIVERGED)
        self.method.end_epoch(self.epoch)
        self.epoch_ended()
        super().after_epoch()

    def check_weights(self, source: str, remedy: str) -> None:
        """Refuse weights that are no numbers.

        Args:
            source: Where they come from.
            remedy: What to do.

        Raises:
            UserError: Naming the tensor.
        """
        check_models(self.method.models, source, remedy)

    def epoch_ended(self) -> None:
        """Do what people want to see of an epoch, before it is saved."""

    def after_train(self) -> None:
        """Finish as Dassl does, then write the summary."""
        super().after_train()
        log.info(self.clock.in_words())
        self.write_results()

    def write_results(self) -> None:
        """Write what is left of the run at its end; one process does it."""
        if self.world.writes:
            self.write_summary()
            write_model(self)
        self.write_report()

    def train(self) -> None:  # type: ignore[override]
        """Train as Dassl does. A method without epochs begins, is saved and evaluated."""
        if self.method.epochs:
            super().train()
            return
        self.set_model_mode("eval")
        self.method.begin()
        if self.get_model_names():
            self.save_model(0, self.output_dir)
        if not self.cfg.TEST.NO_TEST:
            self.test()
        self.write_results()

    # ---------------------------------------------------------------- evaluation

    def model_inference(self, image: Tensor) -> Tensor:
        """Logits of images. Shape (n, C)."""
        logits = self.method.predict(image)
        check_predictions(logits)
        self.predicted.append(logits.argmax(dim=1).cpu())
        return logits

    def test(self, split: str | None = None) -> float:
        """Evaluate as Dassl does, and remember the accuracy (percent) for the summary.

        A user's own images are predicted instead, for there may be no label to compare with.
        """
        with self.clock.part("evaluation"):
            if getattr(self.dm.dataset, "reports_predictions", False):
                return report_predictions(self)
            self.predicted = []
            accuracy = float(super().test(split))
        split = split or self.cfg.TEST.SPLIT
        self.results[f"accuracy_{split}"] = accuracy
        if split == "test":
            write_test_predictions(self, {"end": self.all_predicted()})
        return accuracy

    def all_predicted(self) -> Tensor:
        """Classes of all test images, by all processes. Shape (N,)."""
        return self.world.gather(torch.cat([torch.empty(0, dtype=torch.long), *self.predicted]))

    def write_summary(self, **more: Any) -> None:
        """Write `summary.json`: config, versions, seed, seconds, accuracies."""
        write_summary(self, **more)

    def write_report(self) -> None:
        """Write `report.html`. A run that has come so far does not fail by it."""
        try:
            self.keep_evidence()
            if self.world.writes:
                write_report(Path(self.output_dir))
                self.say_what_next()
        except Exception:  # all results are on disk already
            if not self.world.alone:  # others may wait for this one
                raise
            log.warning("The report could not be written; all other files are there", exc_info=True)

    def say_what_next(self) -> None:
        """Name the commands that go on from a user's own images."""
        if getattr(self.dm.dataset, "reports_predictions", False):
            run = shlex.quote(str(self.output_dir))
            log.info("Next: bash scripts/review.sh %s (mend names), predict.sh (new images), export.sh", run)

    def keep_evidence(self) -> None:
        """Keep what the report needs beside the tables."""

    # ---------------------------------------------------------------- checkpoints

    @loads("--model-dir")
    def load_model(self, directory: str | os.PathLike[str], epoch: int | None = None) -> None:
        """Load a checkpoint: of an epoch, else the best, else the last.

        Raises:
            UserError: If there is none, or it does not fit.
        """
        if not directory and self.get_model_names():
            raise UserError("--eval-only: --model-dir is missing, and nothing is trained; give a run's output folder")
        if directory and epoch is None:
            epoch = last_epoch(Path(directory), self.get_model_names())
        super().load_model(directory, epoch=epoch)
        self.check_weights(f"checkpoint in {directory}", OF_CHECKPOINT)
        self.method.loaded()

    @loads("--resume or --output-dir")
    def resume_model_if_exist(self, directory: str | os.PathLike[str]) -> int:
        """Resume as Dassl does.

        Raises:
            UserError: If the checkpoint does not fit.
        """
        epoch = super().resume_model_if_exist(directory)
        if not epoch and self.cfg.RESUME:
            raise UserError(f"--resume {self.cfg.RESUME}: holds no epoch to go on from; give a run's output folder")
        if epoch:
            self.check_weights(f"checkpoint in {directory}", OF_CHECKPOINT)
        return epoch

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save as Dassl does, by the clock; one process does it for all."""
        with self.clock.part("saving"):
            if self.world.writes:
                super().save_model(*args, **kwargs)
            self.world.barrier()

    def keep_state(self) -> None:
        """Keep what another run needs to go on; likewise."""
        if self.world.writes:
            super().keep_state()
        self.world.barrier()

    def init_writer(self, log_dir: Any) -> None:
        """Begin to write for TensorBoard; likewise."""
        if self.world.writes:
            super().init_writer(log_dir)
