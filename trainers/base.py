"""Base class of the trainers: it adapts a method to Dassl, which has the loop, the checkpoints and the evaluation."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coft.core import processes
from coft.core.errors import UserError
from coft.core.experiment import has_results
from coft.core.finite import check_models, check_predictions
from coft.core.precision import step_attention
from coft.core.threads import prefetch
from coft.core.timing import STEPS, Stopwatch, TimedLoader
from coft.engine.backbone import check_light_module
from coft.engine.class_names import Classes, check_classnames
from coft.engine.diagnostics import Diagnostics
from coft.engine.engine import Engine
from coft.engine.loop import begin
from coft.engine.messages import report_start
from coft.engine.run_log import ZERO_SHOT
from coft.engine.session import DriverContext, Session, Task
from coft.engine.specs import MethodSpec
from coft.images.batches import UnlabeledImages
from coft.labelling.protocol import Method
from dassl.data.datasets import Datum
from dassl.engine import TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer

from .checkpoints import (
    CHECKPOINT_REMEDY,
    State,
    check_backbone,
    check_resumed,
    epoch_to_load,
    keep_identity,
    loads,
)
from .data import (
    check_labelled,
    data_manager,
    hash_of_labelled,
    labels_known,
    reports_predictions,
    templates_in,
    unlabeled_of,
)
from .evaluation import Batches, TestAccuracy, TestPredictions, WorldEvaluator, count_zero_shot, part_of
from .forks import check_fork, take_phase1
from .reporting import calibration, report_predictions, write_results, write_test_predictions
from .sections import SECTIONS
from .toolbox import dassl_in_use

log = logging.getLogger(__name__)
STATE = "method"  # name under which a method's state is registered as a model, to be part of checkpoints


class MethodTrainer(TrainerX):
    """Dassl trainer that runs a method on a frozen CLIP.

    Attributes:
        spec: Specification of the method.
        session: The run.
        images: Unlabeled images, if the method uses any.
        diagnostics: Comparison of pseudo-labels with known labels, for logs and reports.
        truth: Labels of the images, for a method that learns from them.
        results: Numbers for `summary.json`.
        clock: Stopwatch with the seconds by part of the run.
        tally: Number of images per predicted class, in words.
    """

    spec: MethodSpec
    session: Session
    images: UnlabeledImages | None = None
    diagnostics: Diagnostics | None = None
    truth: Tensor | None = None
    train_loader_x: Any
    tally = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        spec = getattr(cls, "spec", None)
        if spec is not None and spec.settings is not None:
            SECTIONS[spec.trainer.upper()] = spec.settings

    def __init__(self, cfg: Any) -> None:
        self.started, self.clock = time.monotonic(), Stopwatch("setting up")
        self.world = processes.world()
        self.predicted = TestPredictions(self.world)
        self.measured = TestAccuracy(self.predicted)
        super().__init__(cfg)
        if not self.world.is_single:
            self.evaluator = WorldEvaluator(self.evaluator, self.num_classes, self.world)

    # ---------------------------------------------------------------- components

    @property
    def engine(self) -> Engine:
        """Engine that executes the method."""
        return self.session.engine

    @property
    def method(self) -> Method:
        """The method."""
        return self.session.method

    @property
    def results(self) -> dict[str, Any]:
        """Numbers for the summary."""
        return self.session.results

    @property
    def labels_used(self) -> int:
        """Number of images whose labels are used in training."""
        return len(self.labelled_data()) if self.spec.learns_from_labels else 0

    @cached_property
    def identity(self) -> dict[str, str]:
        """What a run must have in common with the one that it resumes: that of the session, and labelled batches."""
        batches = self.spec.learns_from_labels and self.images is None
        labelled = {"set of labelled images": hash_of_labelled(self.labelled_data())} if batches else {}
        return self.session.identity | labelled

    def labelled_data(self) -> list[Datum]:
        """Return the images whose labels a trainer that learns from labels uses."""
        return list(self.dm.dataset.train_x)

    def check_cfg(self, cfg: Any) -> None:
        """Check the config early: the backbone, the light module, the final model, and the run to take Phase I from.

        Raises:
            UserError: If one of them is invalid, naming the setting.
        """
        name = self.spec.trainer
        self.spec.check_backbone(cfg.MODEL.BACKBONE.NAME)
        section = cfg.TRAINER[name.upper()] if self.spec.settings else {}
        check_light_module(section.get("VISUAL", "auto"), f"{self.spec.section}.VISUAL")
        if self.spec.label_free and cfg.TEST.FINAL_MODEL != "last_step":
            raise UserError(
                f"TEST.FINAL_MODEL is {cfg.TEST.FINAL_MODEL!r}, which chooses an epoch by labels; "
                f"{name} reads none: leave it at last_step"
            )
        if cfg.TRAIN.PHASE1_FROM and not has_results(Path(cfg.OUTPUT_DIR)):  # a resumed run does not need it
            check_fork(self.spec, cfg)

    def build_data_loader(self) -> None:
        """Build Dassl's loaders and the unlabeled images, whose labels go to the diagnostics only.

        Raises:
            UserError: If a classifier cannot be built on the class names, or an image lacks a label that is needed.
        """
        dm = data_manager(self)
        self.train_loader_x, self.train_loader_u = dm.train_loader_x, dm.train_loader_u
        self.val_loader, self.test_loader = (part_of(loader, self.world) for loader in (dm.val_loader, dm.test_loader))
        self.num_classes, self.num_source_domains = dm.num_classes, dm.num_source_domains
        self.lab2cname, self.dm, self.classnames = dm.lab2cname, dm, list(dm.dataset.classnames)
        check_classnames(self.classnames, f"data set {self.cfg.DATASET.NAME}", distinct=False)
        check_labelled(self)
        if self.spec.label_free:
            self.images, self.diagnostics = unlabeled_of(self)

    def build_model(self) -> None:
        """Build the session, and register its models."""
        self.session = Session(self.cfg, self.spec, self._task(), Path(self.cfg.OUTPUT_DIR), self._context())
        # An attribute of the trainer, since Dassl's checkpoints include every scaler that they find among these.
        self.scaler = self.session.runtime.scaler
        self.clip_model, self.max_epoch = self.session.clip_model, self.method.epochs
        if self.method.saves_state:
            self.register_model(STATE, State(self.session))  # first: it enters the phase of the weights
        for name, model in self.method.models.items():
            self.register_model(name, model, self.engine.optimizers.get(name), self.engine.schedulers.get(name))

    def _task(self) -> Task:
        dataset = self.dm.dataset
        return Task(
            Classes(self.classnames, dict(getattr(dataset, "synonyms", {}))),
            templates_in(dataset, self.cfg.DATASET.NAME),
            self.cfg.DATASET.NAME,
            getattr(dataset, "title", self.cfg.DATASET.NAME),
            getattr(dataset, "descriptions", None),
            images=self.images,
            diagnostics=self.diagnostics,
            truth=self.truth,
            labelled=self.train_loader_x if self.spec.learns_from_labels else None,
            toolbox=dassl_in_use(),
        )

    def _context(self) -> DriverContext:
        optim = self.cfg.OPTIM

        def by_epoch(model: nn.Module) -> tuple[Any, Any]:
            optimizer = build_optimizer(model, optim)
            return optimizer, build_lr_scheduler(optimizer, optim)

        def light(parameters: Iterable[nn.Parameter]) -> Any:
            return build_optimizer(list(parameters), optim)

        return DriverContext(self.world, self.clock.part, light, by_epoch, self.started)

    # ---------------------------------------------------------------- the loop

    def before_train(self) -> None:
        """Resume the run, take Phase I of another run, or begin."""
        super().before_train()
        report_start(self.session)
        if not self.start_epoch and self.cfg.TRAIN.PHASE1_FROM:
            self.start_epoch = take_phase1(self)
        there = {"the epoch to resume at": self.start_epoch}
        processes.check_same(self.world, there, "choose an --output-dir on a disk that all machines share")
        begin(self.session, self.start_epoch)

    def before_epoch(self) -> None:
        """Prepare the epoch: pseudo-labels and batches."""
        self.session.progress.begin(self.epoch)
        self.train_loader_x = self.engine.begin_epoch(self.epoch)

    def run_epoch(self) -> None:
        """Run an epoch as Dassl does, timed."""
        loader, self.train_loader_x = self.train_loader_x, TimedLoader(self.train_loader_x, self.clock)
        attention = step_attention(self.clip_model.visual, self.device.type, self.session.runtime.dtype)
        try:
            with self.clock.part(STEPS), attention:
                super().run_epoch()
        finally:
            self.train_loader_x = loader

    def get_current_lr(self, names: Any = None) -> float:
        """Return the learning rate of the first model with an optimizer; upstream Dassl uses the first of all."""
        trained = [name for name in self.get_model_names(names) if self._optims[name] is not None]
        return super().get_current_lr(trained)

    def forward_backward(self, batch: Any) -> dict[str, float]:
        """Make one step of the method.

        Raises:
            UserError: If a loss is not finite.
        """
        try:
            losses = self.engine.step(batch)
        except FloatingPointError as error:
            raise UserError(
                f"{error} in epoch {self.epoch + 1}, batch {self.batch_idx + 1}; lower the learning rate, or look for "
                f"images or settings that overflow"
            ) from error
        self.session.progress.step()
        return losses

    def after_epoch(self) -> None:
        """End the epoch, record its metrics, and save."""
        check_models(self.method.models, f"epoch {self.epoch + 1}")
        self.engine.end_epoch()
        if self.session.log:
            self._record_epoch()
        super().after_epoch()

    def _record_epoch(self) -> None:
        """Record the metrics of the epoch for the curves, and always save a checkpoint at the end of Phase I."""
        log_of_run, done, every = self.session.log, self.epoch + 1, self.cfg.TRAIN.EVAL_FREQ
        assert log_of_run is not None
        phase = self.method.phase(self.epoch)
        ends = done == self.max_epoch or phase != self.method.phase(done)
        measured = self.accuracies() if ends or (every and done % every == 0) else {}
        if measured and "accuracy_both" not in log_of_run.history.stage(ZERO_SHOT):
            log_of_run.before_training(**self._accuracies(count_zero_shot))
        if ends and measured and done < self.max_epoch:
            write_test_predictions(self, {f"phase{phase}": self.predicted.of_all()})
        for key, value in log_of_run.add(done, f"phase{phase}", **measured).items():
            self.write_scalar(f"coft/{key}", value, done)
        if ends and done < self.max_epoch:
            self.save_model(self.epoch, self.output_dir)

    def after_train(self) -> None:
        """Finish as Dassl does, then write summary, model, report and curves."""
        if self.session.log:
            self.results.update(self.session.log.results())
        super().after_train()
        log.info(self.clock.summary())
        write_results(self)
        if self.session.log and self.world.is_main:
            self.session.log.finish()

    def train(self) -> None:  # type: ignore[override]
        """Train as Dassl does. A method without epochs is only initialised, saved and evaluated.

        Raises:
            UserError: If it would learn from labels of test images, or a method without epochs is to be resumed.
        """
        if self.spec.learns_from_labels and getattr(self.dm.dataset, "only_tests", False):
            raise UserError(
                f"{self.spec.trainer} learns from labels, and data set {self.cfg.DATASET.NAME} has test images alone; "
                f"take a trainer without labels, such as CoFT"
            )
        if self.method.epochs:
            super().train()
            return
        if self.cfg.RESUME:
            raise UserError(f"--resume: {self.spec.trainer} has no epochs, so none to go on from; leave it out")
        report_start(self.session)
        self.set_model_mode("eval")
        self.engine.begin()
        if self.get_model_names():
            self.save_model(0, self.output_dir)
        if not self.cfg.TEST.NO_TEST:
            self.test()
        write_results(self)

    # ---------------------------------------------------------------- evaluation

    def model_inference(self, image: Tensor) -> Tensor:
        """Return the logits of images, shape (n, C). Input that has this shape already is taken as logits."""
        logits = image if image.dim() == 2 else self.engine.predict(image)
        check_predictions(logits)
        self.predicted.add(logits)
        return logits

    def test(self, split: str | None = None) -> float:
        """Evaluate as Dassl does, and record the accuracy (percent) for the summary.

        On a user's own images, which may have no labels, predictions are written instead.
        """
        with self.clock.part("evaluation"):
            if reports_predictions(self.dm.dataset):
                return report_predictions(self)
            self.predicted.forget()
            images, self.test_loader = self.test_loader, self.measured.cached_or(self.test_loader, self.engine)
            try:
                accuracy = float(super().test(split))
            finally:
                self.test_loader = images
        split = "test" if self.val_loader is None else split or self.cfg.TEST.SPLIT
        self.results[f"accuracy_{split}"] = accuracy
        if split == "test":
            predicted, confidence = self.predicted.of_all(), self.predicted.confidence()
            self.results.update(calibration(self.dm.dataset.test, predicted, confidence))
            write_test_predictions(self, {"end": predicted}, confidence)
        return accuracy

    def accuracies(self) -> dict[str, float]:
        """Compute the test accuracy (percent) of each peer and of both, for the curves only.

        Returns:
            Accuracies by name; empty if no label is known.
        """
        return self._accuracies(self.measured.count_right)

    def _accuracies(self, count_right: Callable[[Engine, Batches], dict[str, int]]) -> dict[str, float]:
        if not labels_known(self.dm.dataset):
            return {}
        self.set_model_mode("eval")
        with self.clock.part("evaluation"):
            right = count_right(self.engine, map(self.parse_batch_test, prefetch(iter(self.test_loader))))
        total = len(self.dm.dataset.test)
        return {f"accuracy_{who}": 100 * count / total for who, count in right.items()}

    # ---------------------------------------------------------------- checkpoints

    @loads("--model-dir")
    def load_model(self, directory: str | os.PathLike[str], epoch: int | None = None) -> None:
        """Load a checkpoint; see `epoch_to_load`."""
        if directory:
            check_backbone(self, Path(directory))
        super().load_model(directory, epoch=epoch_to_load(directory, epoch, self.get_model_names()))
        check_models(self.method.models, f"checkpoint in {directory}", CHECKPOINT_REMEDY)
        self.engine.loaded()

    @loads("--output-dir")
    def resume_model_if_exist(self, directory: str | os.PathLike[str]) -> int:
        """Resume as Dassl does, with the numbers of the earlier part of the run; see `check_resumed`."""
        epoch = super().resume_model_if_exist(directory)
        check_resumed(self, directory, epoch)
        self.engine.loaded()
        if self.session.log:
            self.session.log.resume(epoch, Path(directory))
        return epoch

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save as Dassl does, timed. The main process writes, the others wait for it."""
        with self.clock.part("saving"):
            if self.world.is_main:
                super().save_model(*args, **kwargs)
                keep_identity(self)
            self.world.barrier()

    def keep_state(self) -> None:
        """Write the resumable state. The main process writes, the others wait for it."""
        with self.clock.part("saving"):
            if self.world.is_main:
                super().keep_state()
                keep_identity(self)
            self.world.barrier()

    def init_writer(self, log_dir: Any) -> None:
        """Open the TensorBoard writer, on the main process only."""
        if not self.world.is_main:
            return
        try:
            super().init_writer(log_dir)
        except UnicodeEncodeError:
            log.warning("%r: TensorBoard takes names in UTF-8 alone, so it gets no curves", str(log_dir))
