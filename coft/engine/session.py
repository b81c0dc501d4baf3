"""One run of a method: what it is built from, what it keeps to go on from, and what it leaves in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from coft.backbones.backbone import ClassBackbone
from coft.backbones.frozen_bank import make_skippable
from coft.backbones.load import fingerprint
from coft.backbones.prompts import all_names
from coft.backbones.unseen import warn_of_unseen
from coft.core import processes
from coft.core.experiment import KEPT, check_identity, versions, write_json
from coft.core.settings import keys
from coft.core.world import ALONE, World
from coft.images.batches import UnlabeledImages
from coft.inference.locate_model import FOLDER
from coft.inference.model import AdaptedModel, BackboneRef
from coft.inference.store import portable_name, save
from coft.labelling.protocol import Method, Observer
from coft.report.image_facts import write_frozen

from .backbone import forward_type, identity_of, load_backbone, precision_of
from .class_names import Classes, class_list
from .course import course_of
from .described import Sentences, described_text
from .diagnostics import Diagnostics
from .engine import Engine
from .inputs import decoding_of, inputs_of
from .optimizers import Built, MakeOptimizer, light_optimizer
from .run_log import RunLog, SeedReport
from .runtime import Runtime

if TYPE_CHECKING:
    from .specs import MethodSpec

CALIBRATED = ("CoFT", "CoFTPlus")  # methods


@dataclass
class Task:
    """What a run is of, beside its settings.

    Attributes:
        classes: Names of the classes, with synonyms.
        templates: Words with one "{}" each.
        dataset: Name of the data set.
        title: What people call it.
        descriptions: Sentences by class name that came with the images; None: those of the data set count.
        images: The unlabeled images; None where a method has none.
        diagnostics: What knows the labels of these images, for people to read.
        truth: Labels of these images, for methods that learn from labels. Shape (N,).
        labelled: Batches of labelled images, {"img", "label"}, for methods that learn from labels.
        toolbox: The Dassl in use.
    """

    classes: Classes
    templates: tuple[str, ...]
    dataset: str = "folder"
    title: str = "Folder"
    descriptions: dict[str, list[str]] | None = None
    images: UnlabeledImages | None = None
    diagnostics: Diagnostics | None = None
    truth: Tensor | None = None
    labelled: Iterable[Any] | None = None
    toolbox: str = "none"


@dataclass
class Means:
    """What a driver gives a run, where it has some of its own.

    Attributes:
        world: The processes.
        timed: Context that counts the seconds of a part of the work.
        make_light: Makes the optimizer of prompts and light modules from its parameters.
        make_by_epoch: Makes optimizer and schedule of a model whose schedule is stepped once an epoch.
        started: When the run began, by time.monotonic().
    """

    world: World = ALONE
    timed: Callable[[str], AbstractContextManager[Any]] = nullcontext
    make_light: MakeOptimizer = light_optimizer
    make_by_epoch: Callable[[nn.Module], Built] | None = None
    started: float = field(default_factory=time.monotonic)


class Session:
    """A run of a method: CLIP, engine, method and records, built from a config.

    Args:
        cfg: All settings: anything that has sections and keys as attributes.
        spec: The method.
        task: What it is run on.
        folder: Of the results; None: nothing is kept.
        means: What the driver has of its own.

    Attributes:
        settings: The method's own.
        clip_model: The frozen CLIP.
        backbone_id: Its fingerprint.
        engine: What runs the method.
        method: The method.
        course: How far it is.
        log: Numbers of a run of two peers, which are written; None of others.
        results: Numbers for the summary.
    """

    def __init__(
        self, cfg: Any, spec: MethodSpec, task: Task, folder: Path | None = None, means: Means | None = None
    ) -> None:
        self.cfg, self.spec, self.task, self.folder, self.means = cfg, spec, task, folder, means or Means()
        self.world, self.results = self.means.world, dict[str, Any]()
        self.settings = spec.settings_of(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.runtime = self._runtime()
        self.precision = precision_of(self.runtime.dtype)
        spec.check_backbone(cfg.MODEL.BACKBONE.NAME)
        with processes.first_alone(self.world):  # which may have to download it
            self.clip_model = load_backbone(cfg, self.device)
        self.backbone_id = fingerprint(self.clip_model)
        if self.device.type == "cpu" and not self.runtime.compiler:
            self.runtime.keeps_stages = make_skippable(self.clip_model.visual, max(cfg.INPUT.SIZE))
        self.engine = Engine(task.images, self._clip(), self.runtime, self.means.make_light, self.means.make_by_epoch)
        self.log = self._log()
        self.method: Method = spec.make(self)
        self.engine.attach(self.method)
        self.course = course_of(self.method)

    # ---------------------------------------------------------------- building

    def _runtime(self) -> Runtime:
        cfg, precision = self.cfg, getattr(self.settings, "prec", "fp32")
        dtype = forward_type(precision, self.device, f"{self.spec.section}.PREC")
        return Runtime(
            cfg.SEED,
            self.device,
            dtype,
            scaler=torch.amp.GradScaler(self.device.type) if dtype is torch.float16 else None,
            micro_batch=cfg.TRAIN.MICRO_BATCH,
            compiler=cfg.TRAIN.COMPILE,
            timed=self.means.timed,
            world=self.world,
        )

    def _clip(self) -> ClassBackbone:
        classes, name = self.task.classes, self.cfg.MODEL.BACKBONE.NAME
        warn_of_unseen(name, all_names(classes.names, classes.synonyms)[0])
        return ClassBackbone(
            self.clip_model,
            classes.names,
            self.task.templates,
            self.identity,
            lambda templates: described_text(self.cfg, self.sentences, templates),
            self.precision,
            classes.synonyms,
        )

    def _log(self) -> RunLog | None:
        images, diagnostics = self.task.images, self.task.diagnostics
        if not (self.spec.two_peers and self.folder and images is not None and diagnostics is not None):
            return None
        args = self.folder, images.pool.paths, self.task.classes.names, diagnostics, self.means.started
        return RunLog(*args, self.world)

    @property
    def observer(self) -> Observer:
        """What sees the pseudo-labels."""
        if self.log is not None:
            return self.log
        return Observer() if self.task.diagnostics is None else SeedReport(self.task.diagnostics, self.results)

    @cached_property
    def sentences(self) -> Sentences:
        """Descriptions of the classes."""
        task, classes = self.task, self.task.classes
        return Sentences(
            self.clip_model, classes.names, classes.synonyms, task.templates, task.dataset, task.descriptions
        )

    @property
    def identity(self) -> dict[str, str]:
        """What a checkpoint must share with this run to be loaded."""
        digest = "" if self.task.images is None else self.task.images.digest
        classes = self.task.classes
        return identity_of(self.cfg, self.backbone_id, class_list(classes.names, classes.synonyms), digest)

    # ---------------------------------------------------------------- what a run goes on from

    def state_dict(self) -> dict[str, Any]:
        """All that is to be kept beside weights and optimizers: what the run is of, and the method's state."""
        return {"identity": self.identity, "method": self.method.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over such a state, before the weights.

        Raises:
            OtherRunError: If it is of another backbone, class list or set of images.
            Misfit: If labels are of other images or classes.
        """
        check_identity(state["identity"], self.identity)
        self.method.load_state_dict(state["method"])
        for labels in self.method.labels.values():
            labels.check(len(self.engine.images or ()), len(self.engine.clip.classnames))

    # ---------------------------------------------------------------- what a run leaves

    @property
    def calibrated(self) -> bool:
        """Whether the model's confidences say how many are right."""
        guarded = self.spec.trainer in CALIBRATED and self.cfg.TRAIN.GUARD and self.method.trains
        return guarded and self.settings.clean_rule == "softmax"

    def write_summary(self, folder: Path, **more: Any) -> None:
        """Write `summary.json`.

        Args:
            folder: Of the results.
            **more: What the driver knows; it stands where its name stands below, else at the end.
        """
        content = {
            "trainer": self.spec.trainer,
            "dataset": self.task.title,
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            "backbone_fingerprint": self.backbone_id,
            "seed": self.cfg.SEED,
            "precision": self.precision,
            "labels_used": 0,
            "ensemble": self.method.ensemble_size,
            **({} if self.method.trains else KEPT),
            "calibrated": self.calibrated,
            "seconds": round(time.monotonic() - self.means.started, 1),
            "results": self.results,
            "device": str(self.device),
            "versions": versions(self.task.toolbox),
            "config": self.cfg.dump(),
        }
        write_json(folder / "summary.json", {**content, **more})

    def model(self, **about: Any) -> AdaptedModel | None:
        """The finished model; None where the method predicts by other means than image classifiers.

        Args:
            **about: What people may want to know of it, beside trainer, seed and settings.
        """
        predictor = self.engine.predictor
        if predictor is None:
            return None
        name = portable_name(self.cfg.MODEL.BACKBONE.NAME)
        frozen_stages = max(0, self.cfg.MODEL.BACKBONE.FROZEN_STAGES)
        images = self.task.images if self.spec.label_free else None
        chosen, default = self._chosen(self.settings), self._chosen(type(self.settings))
        origin = {
            "trainer": self.spec.trainer,
            "dataset": self.task.title,
            "unlabeled_images": 0 if images is None else len(images),
            "labels_used": 0,
            "seed": self.cfg.SEED,
            "settings": chosen,
            "not_default": {key: value for key, value in chosen.items() if value != default[key]},
            "versions": versions(self.task.toolbox),
        }
        return AdaptedModel(
            tuple(self.task.classes.names),
            tuple(self.task.templates),
            BackboneRef(name, self.backbone_id, frozen_stages),
            inputs_of(self.cfg),
            decoding_of(self.cfg),
            self.precision,
            predictor,
            self.clip_model,
            {**origin, **about},
        )

    def _chosen(self, settings: Any) -> dict[str, Any]:
        """Values of the method's settings, or of their class, by their full names."""
        declared = keys(settings, f"TRAINER.{self.spec.trainer.upper()}") if self.spec.settings else {}
        return {name: key.default for name, key in declared.items()}

    def write_model(self, folder: Path, **about: Any) -> None:
        """Write the finished model, if there is one."""
        model = self.model(**about)
        if model is not None and self.world.writes:
            save(model, folder / FOLDER)

    def write_image_facts(self, folder: Path) -> None:
        """Keep what the frozen CLIP knows of the unlabeled images, which the report of two peers shows."""
        if not self.spec.two_peers:
            return
        clip, views = self.engine.clip, getattr(self.settings, "label_views", 1)

        def write() -> None:
            features, text = self.engine.clip_features(views), clip.zero_shot_text()
            write_frozen(folder, clip.classnames, features, text, clip.scale)

        self.engine.decide(write)
