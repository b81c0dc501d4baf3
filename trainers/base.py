"""What every trainer of the project shares: images, backbone, precision, and checkpoints that say what is wrong."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from coft.backbones.load import Architecture, architecture, fingerprint, load_clip
from coft.images.reading import decoding_of
from coft.images.unlabeled import UnlabeledPool
from coft.runtime.diagnostics import Diagnostics
from coft.runtime.errors import UserError
from coft.runtime.experiment import versions, write_json
from coft.runtime.precision import AUTO, PRECISIONS, faster_precision, step_attention
from coft.runtime.predictions import count_by_class, known_accuracy, predict, write_predictions
from coft.runtime.ranges import check_positive
from coft.runtime.timing import STEPS, Stopwatch, Waited, recorded
from dassl.data import DataManager
from dassl.data.datasets import Datum
from dassl.engine import TrainerX
from datasets.templates import templates_of

from .labeled_images import LabeledImages
from .toolbox import dassl_in_use

log = logging.getLogger(__name__)


class ClipTrainer(TrainerX):
    """A Dassl trainer on a frozen CLIP.

    Attributes:
        clip_model: The frozen CLIP, after `load_backbone`.
        label_free: Whether the trainer reads no label; then the last epoch counts, not the best one.
        learns_from_labels: Whether it trains on labels, unless it is label-free.
        scaler: Gradient scaler of fp16 training on a GPU, else None.
        precision: Of the forward pass, by name.
        pool: The unlabeled images, of a label-free trainer.
        diagnostics: Numbers about pseudo-labels, for people to read.
        results: Accuracies in full precision for `summary.json`.
        clock: Seconds by part of the run.
        profile: Whether to record the operations of a few steps of each phase, to `profile.txt`.
    """

    clip_model: Any
    scaler: Any = None
    precision = "fp32"
    label_free = False
    learns_from_labels = False
    profile = False
    amp_dtype: torch.dtype | None = None

    def __init__(self, cfg: Any) -> None:
        self.results: dict[str, Any] = {}
        self.started, self.clock = time.monotonic(), Stopwatch("setting up")
        super().__init__(cfg)

    def check_cfg(self, cfg: Any) -> None:
        """Refuse batches of nothing, and to choose the best epoch by labels where no label is to be read.

        Raises:
            UserError: If a number makes no sense, or TEST.FINAL_MODEL asks for labels.
        """
        check_positive(cfg, "DATALOADER.TRAIN_X.BATCH_SIZE", "DATALOADER.TEST.BATCH_SIZE")
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
        dm = DataManager(self.cfg, dataset_wrapper=LabeledImages)
        if self.learns_from_labels and not self.label_free and getattr(dm.dataset, "reports_predictions", False):
            raise UserError(
                f"{type(self).__name__} learns from labels, and your own images have none: use a label-free trainer, "
                f"such as CoFT (names of folders serve the evaluation only)"
            )
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm
        if self.label_free:
            self.take_unlabeled()

    def take_unlabeled(self) -> None:
        """Take the training images without their labels; these go to the diagnostics alone.

        Raises:
            UserError: If the images that are there were chosen by their labels.
        """
        train, shots = self.training_images, self.cfg.DATASET.NUM_SHOTS
        if self.label_free and shots > 0 and not self.dm.dataset.train_u:
            raise UserError(
                f"DATASET.NUM_SHOTS {shots} leaves {self.cfg.DATASET.NAME} the images of a few labels alone, and "
                f"{type(self).__name__} reads no label: leave it at -1, or give the data set a train_u of all images"
            )
        if self.label_free and (which := self.cfg.DATASET.SUBSAMPLE_CLASSES) != "all":
            log.warning("DATASET.SUBSAMPLE_CLASSES %s leaves out images of other classes, by their labels", which)
        known = getattr(self.dm.dataset, "content_hashes", None)
        self.pool = self.make_pool([item.impath for item in train], known)
        log.info("Unlabeled images: %d, the %s", len(self.pool), self.unlabeled_part)
        self.diagnostics = Diagnostics([train[i].label for i in self.pool.order.tolist()])

    @property
    def training_images(self) -> list[Datum]:
        """All training images that are to be had: data sets in CoOp's style have them in train_x alone."""
        return list(self.dm.dataset.train_u or self.dm.dataset.train_x)

    def make_pool(self, paths: Sequence[str], hashes: Mapping[str, str] | None = None) -> UnlabeledPool:
        """Take images in the order of their content, read and kept as INPUT says."""
        return UnlabeledPool(paths, self.cfg.INPUT.CACHE_MB << 20, hashes, decoding_of(self.cfg))

    @property
    def classnames(self) -> list[str]:
        """Declared class names, by label."""
        return list(self.dm.dataset.classnames)

    @property
    def unlabeled_part(self) -> str:
        """What the unlabeled images are, in words."""
        return getattr(self.dm.dataset, "unlabeled_part", "training images")

    @property
    def templates(self) -> tuple[str, ...]:
        """Templates of the data set."""
        return templates_of(self.cfg.DATASET.NAME)

    @property
    def ensemble_size(self) -> int:
        """Number of models that are averaged at prediction: as a rule, all that train."""
        return max(1, len(self._models))

    @property
    def labels_used(self) -> int:
        """Number of images whose labels training reads."""
        return 0

    @property
    def identity(self) -> dict[str, str]:
        """What a checkpoint must share with this run to be loaded."""
        return {
            "backbone": self.backbone_id,
            "set of unlabeled images": self.pool.digest,
            "class list": " | ".join(self.classnames),
        }

    def load_backbone(self) -> Any:
        """Load the frozen CLIP of the config to the trainer's device.

        Raises:
            UserError: If INPUT.SIZE does not fit it.
        """
        name, trust = self.cfg.MODEL.BACKBONE.NAME, self.cfg.MODEL.BACKBONE.TRUST_JIT
        self.architecture: Architecture = architecture(name, trust)
        size, expected = tuple(self.cfg.INPUT.SIZE), (self.architecture.resolution,) * 2
        if size != expected:
            raise UserError(
                f"INPUT.SIZE is {size}, backbone {name} reads {expected}; leave INPUT.SIZE unset to follow it"
            )
        self.clip_model = load_clip(name, trust).to(self.device)
        if not self.architecture.is_vit:
            self.clip_model.visual.to(memory_format=torch.channels_last)  # faster convolutions, the same results
        self.backbone_id = fingerprint(self.clip_model)
        return self.clip_model

    def set_precision(self, precision: str, key: str) -> None:
        """Choose the precision of the forward pass; weights stay fp32. fp16 on a CPU is run as fp32.

        Raises:
            UserError: If the name is unknown.
        """
        if precision == AUTO:
            precision = faster_precision(self.device.type)
        if precision not in PRECISIONS:
            raise UserError(f"{key} is {precision!r}; expected one of {', '.join([*PRECISIONS, AUTO])}")
        self.amp_dtype = PRECISIONS[precision]
        if self.amp_dtype is torch.float16:
            if self.device.type == "cpu":
                self.amp_dtype = None
            else:
                self.scaler = torch.amp.GradScaler(self.device.type)
        self.precision = precision if self.amp_dtype else "fp32"
        log.info("Precision: %s", self.precision)

    def autocast(self) -> torch.autocast:
        """Context in which a forward pass runs."""
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    def descend(self, loss: torch.Tensor, name: str) -> None:
        """Make one step of a registered model's optimizer.

        Raises:
            UserError: If the loss is not finite.
        """
        if not math.isfinite(float(loss.detach())):
            raise UserError(
                f"{name}: the loss is {float(loss.detach())} in epoch {self.epoch + 1}, batch {self.batch_idx + 1}; "
                f"lower the learning rate, or look for images or settings that overflow"
            )
        if self.scaler is None:
            self.model_backward_and_update(loss, name)
            return
        optimizer = self._optims[name]
        optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(optimizer)
        self.scaler.update()

    def load_model(self, directory: str | os.PathLike[str], epoch: int | None = None) -> None:
        """Load a checkpoint: of an epoch, else the best, else the last.

        Raises:
            UserError: If there is none, or it does not fit.
        """
        if directory and epoch is None:
            epoch = self._last_epoch(Path(directory))
        try:
            super().load_model(directory, epoch=epoch)
        except FileNotFoundError as error:
            raise UserError(
                f"--model-dir {directory}: {error}; give the folder and epoch of a run of this trainer"
            ) from error
        except (RuntimeError, KeyError) as error:
            raise UserError(self._misfit(directory, error)) from error

    def resume_model_if_exist(self, directory: str | os.PathLike[str]) -> int:
        """Resume as Dassl does.

        Raises:
            UserError: If the checkpoint does not fit.
        """
        try:
            return super().resume_model_if_exist(directory)
        except (RuntimeError, KeyError) as error:
            raise UserError(self._misfit(directory, error)) from error

    def _misfit(self, directory: str | os.PathLike[str], error: Exception) -> str:
        reason = " ".join(str(error).split())[:160]
        return (
            f"checkpoint in {directory} does not fit backbone {self.cfg.MODEL.BACKBONE.NAME} and trainer "
            f"{type(self).__name__} ({reason}); use the backbone and classes it was trained with"
        )

    def _last_epoch(self, directory: Path) -> int | None:
        """Epoch of the last checkpoint, where there is no best one."""
        for name in self.get_model_names():
            pointer = directory / name / "checkpoint"
            if not (directory / name / "model-best.pth.tar").exists() and pointer.is_file():
                return int(pointer.read_text(encoding="utf-8").split("-")[-1])
        return None

    def test(self, split: str | None = None) -> float:
        """Evaluate as Dassl does, and remember the accuracy (percent) for the summary.

        A user's own images are predicted instead, for there may be no label to compare with.
        """
        with self.clock.part("evaluation"):
            if getattr(self.dm.dataset, "reports_predictions", False):
                return self.report_predictions()
            accuracy = float(super().test(split))
        self.results[f"accuracy_{split or self.cfg.TEST.SPLIT}"] = accuracy
        return accuracy

    def report_predictions(self) -> float:
        """Write `predictions.csv`.

        Returns:
            Accuracy (percent) over the images whose label is known, which is remembered for the summary, or NaN.
        """
        predicted, confidence, label = predict(self, self.test_loader)
        path = Path(self.output_dir) / "predictions.csv"
        images = [item.impath for item in self.dm.dataset.test]
        write_predictions(path, images, self.classnames, predicted, confidence)
        self.results["predicted"] = len(images)
        print(f"Predicted {len(images)} images: {count_by_class(self.classnames, predicted)}\n  {path}")
        accuracy = known_accuracy(predicted, label)
        if accuracy is None:
            print("No labels are known: there is no accuracy to report")
            return math.nan
        print(f"* accuracy: {accuracy:.1f}%, by the names of the folders")
        self.results["accuracy_test"] = accuracy
        return accuracy

    @property
    def phase(self) -> int:
        """Phase of the present epoch."""
        return 1

    def run_epoch(self) -> None:
        """Run an epoch as Dassl does, by the clock."""
        own: Any = self  # its loader is another one for the time of an epoch
        loader, own.train_loader_x = own.train_loader_x, Waited(own.train_loader_x, self.clock)
        attention = step_attention(self.clip_model.visual, self.device.type, self.amp_dtype)
        recorder = recorded(self, self._report_profile) if self.profile else nullcontext()
        try:
            with self.clock.part(STEPS), attention, recorder:
                super().run_epoch()
        finally:
            own.train_loader_x = loader

    def _report_profile(self, table: str) -> None:
        print(table)
        with (Path(self.output_dir) / "profile.txt").open("a", encoding="utf-8") as file:
            file.write(f"{table}\n")

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save as Dassl does, by the clock."""
        with self.clock.part("saving"):
            super().save_model(*args, **kwargs)

    @property
    def labels_known(self) -> bool:
        """Whether a test image has a label."""
        return any(item.label >= 0 for item in self.dm.dataset.test)

    def after_train(self) -> None:
        """Finish as Dassl does, then write the summary."""
        super().after_train()
        log.info(self.clock.in_words())
        self.write_summary()

    def write_summary(self, **more: Any) -> None:
        """Write `summary.json`: config, versions, seed, seconds, accuracies."""
        write_json(
            Path(self.output_dir) / "summary.json",
            {
                "trainer": type(self).__name__,
                "dataset": self.cfg.DATASET.NAME,
                "backbone": self.cfg.MODEL.BACKBONE.NAME,
                "backbone_fingerprint": self.backbone_id,
                "seed": self.cfg.SEED,
                "shots": self.cfg.DATASET.NUM_SHOTS,
                "precision": self.precision,
                "labels_used": self.labels_used,
                **({"unlabeled": self.unlabeled_part} if self.label_free else {}),
                "ensemble": self.ensemble_size,
                "seconds": round(time.monotonic() - self.started, 1),
                "seconds_by_part": {part: round(value, 2) for part, value in self.clock.split().items()},
                "results": self.results,
                **more,
                "device": str(self.device),
                "versions": versions(dassl_in_use()),
                "config": self.cfg.dump(),
            },
        )
