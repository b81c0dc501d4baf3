"""One run of a method: its components, its resumable state, and its final outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from coft.core.experiment import UNTRAINED_ENTRY, check_identity, versions, write_json
from coft.core.settings import keys
from coft.core.world import SINGLE_PROCESS, World
from coft.images.batches import UnlabeledImages
from coft.inference.locate_model import FOLDER
from coft.inference.model import AdaptedModel, BackboneRef
from coft.inference.store import portable_name, save
from coft.labelling.protocol import Method, Observer
from coft.report.image_facts import write_frozen

from .backbone import forward_type, load_backbone
from .class_names import Classes, class_list, hash_of_sentences
from .class_texts import SOURCES, ClassTexts
from .diagnostics import Diagnostics
from .engine import Engine
from .inputs import decoding_of, inputs_of
from .optimizers import Built, MakeOptimizer, light_optimizer
from .run_log import RunLog, SeedReport
from .run_progress import progress_of
from .runtime import Runtime

if TYPE_CHECKING:
    from .specs import MethodSpec

CALIBRATED = ("CoFT", "CoFTPlus")  # methods


@dataclass
class Task:
    """Inputs of a run other than its settings.

    Attributes:
        classes: Class names, with synonyms.
        templates: Prompt templates with one "{}" each.
        dataset: Name of the data set.
        title: Display name of the data set.
        descriptions: User's class descriptions, sentences by class name; None: those of the data set are used.
        images: Unlabeled images; None if the method uses none.
        diagnostics: Labels of these images for comparison with pseudo-labels, for logs and reports only.
        truth: Labels of these images, for methods that learn from labels. Shape (N,).
        labelled: Batches of labelled images, {"img", "label"}, for methods that learn from labels.
        toolbox: Distribution and version of Dassl in use; "none" without Dassl.
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
class DriverContext:
    """Processes, clock and optimizers that the driver of a run (`coft.adapt` or a Dassl trainer) may supply.

    Attributes:
        world: Processes of the run.
        timed: Context that adds its duration to the named part of the work.
        make_light: Factory for the optimizer of prompts and light modules, called with its parameters.
        make_by_epoch: Factory for optimizer and schedule of a model whose schedule is stepped once per epoch.
        started: Start time of the run, by time.monotonic().
    """

    world: World = SINGLE_PROCESS
    timed: Callable[[str], AbstractContextManager[Any]] = nullcontext
    make_light: MakeOptimizer = light_optimizer
    make_by_epoch: Callable[[nn.Module], Built] | None = None
    started: float = field(default_factory=time.monotonic)


def device_of(cfg: Any) -> torch.device:
    """Return the device of this process.

    A GPU is named with its number: another thread than the main one would take the first GPU otherwise.
    """
    if torch.cuda.is_available() and cfg.USE_CUDA:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


class Session:
    """A run of a method: CLIP, engine, method and records, built from a config.

    Args:
        cfg: All settings: any object with sections and keys as attributes.
        spec: Specification of the method.
        task: Classes, images and labels of the run.
        folder: Output folder; None: no files are written.
        context: Processes, clock and optimizers of the driver.

    Attributes:
        settings: Settings of the method.
        clip_model: Frozen CLIP.
        backbone_id: Fingerprint of the frozen CLIP.
        engine: Engine that executes the method.
        method: The method.
        progress: Progress of the run.
        log: Metrics of a run with two peers, written to files; None for other methods and without a folder.
        results: Numbers for the summary.
    """

    def __init__(self, cfg: Any, spec: MethodSpec, task: Task, folder: Path | None, context: DriverContext) -> None:
        self.cfg, self.spec, self.task, self.folder, self.context = cfg, spec, task, folder, context
        self.world, self.results = self.context.world, dict[str, Any]()
        self.settings = spec.settings_of(cfg)
        self.device = device_of(cfg)
        self.runtime = self._runtime()
        self.precision = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.runtime.dtype]
        spec.check_backbone(cfg.MODEL.BACKBONE.NAME)
        with processes.main_process_first(self.world):  # the main process may have to download it
            self.clip_model = load_backbone(cfg, self.device)
        self.backbone_id = fingerprint(self.clip_model)
        if self.device.type == "cpu" and not self.runtime.compiler:
            self.runtime.keeps_stages = make_skippable(self.clip_model.visual, max(cfg.INPUT.SIZE))
        self.engine = Engine(
            task.images, self._clip(), self.runtime, self.context.make_light, self.context.make_by_epoch
        )
        self.log = self._log()
        self.method: Method = spec.make(self)
        self.engine.attach(self.method)
        self.progress = progress_of(self.method)

    # ---------------------------------------------------------------- building

    def _runtime(self) -> Runtime:
        cfg, precision = self.cfg, getattr(self.settings, "prec", "fp32")
        dtype = forward_type(precision, self.device)
        scaler = torch.amp.GradScaler(self.device.type) if dtype is torch.float16 else None
        if scaler is not None:
            scaler.scale(torch.zeros((), device=self.device))  # or a process without images of a batch cannot step
        return Runtime(
            cfg.SEED,
            self.device,
            dtype,
            scaler=scaler,
            micro_batch=cfg.TRAIN.MICRO_BATCH,
            compiler=cfg.TRAIN.COMPILE,
            timed=self.context.timed,
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
            self._described,
            self.precision,
            classes.synonyms,
        )

    def _described(self, templates: Sequence[str]) -> Tensor | None:
        """Return the text features of templates and of the descriptions that DATASET.DESCRIPTIONS selects, if any."""
        chosen = self.cfg.DATASET
        features = self.sentences.describe(getattr(chosen, "DESCRIPTIONS", "none"), templates)
        return None if features is None else features(chosen.DESCRIPTIONS_SHARE)

    def _log(self) -> RunLog | None:
        images, diagnostics = self.task.images, self.task.diagnostics
        if not (self.spec.two_peers and self.folder and images is not None and diagnostics is not None):
            return None
        args = self.folder, images.pool.paths, self.task.classes.names, diagnostics, self.context.started
        return RunLog(*args, self.world)

    @property
    def observer(self) -> Observer:
        """Observer of the pseudo-labels."""
        if self.log is not None:
            return self.log
        return Observer() if self.task.diagnostics is None else SeedReport(self.task.diagnostics, self.results)

    @cached_property
    def sentences(self) -> ClassTexts:
        """Descriptions of the classes."""
        return ClassTexts(self.clip_model, self.task)

    @cached_property
    def identity(self) -> dict[str, str]:
        """Backbone, classes, images and descriptions of this run. A checkpoint must have the same ones to be loaded."""
        task, stages = self.task, self.cfg.MODEL.BACKBONE.FROZEN_STAGES
        backbone = f"{self.backbone_id}, {stages} stages frozen" if stages > 0 else self.backbone_id
        images = {} if task.images is None else {"set of unlabeled images": task.images.digest}
        classes = {"class list": class_list(task.classes, task.descriptions)}
        return {"backbone": backbone, **images, **classes, **self._description_files()}

    def _description_files(self) -> dict[str, str]:
        """Return the hash of the sentences in each file that a setting names, by that setting."""
        of_run = getattr(getattr(self.settings, "descriptions", None), "from_", "none")
        sources = {
            "DATASET.DESCRIPTIONS": getattr(self.cfg.DATASET, "DESCRIPTIONS", "none"),
            f"{self.spec.section}.DESCRIPTIONS.FROM": of_run,
        }
        files = {f"file of {key}": name for key, name in sources.items() if name not in SOURCES}
        return {key: hash_of_sentences(self.sentences.of(name) or {}) for key, name in files.items()}

    # ---------------------------------------------------------------- resumable state

    def state_dict(self) -> dict[str, Any]:
        """Return the state besides weights and optimizers: the identity of the run and the method's state."""
        return {"identity": self.identity, "method": self.method.state_dict(), "results": dict(self.results)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state from `state_dict`. Weights must be loaded after it.

        Raises:
            OtherRunError: If the state belongs to another backbone, class list or set of images.
            SchemaError: If its pseudo-labels do not fit the number of images or classes.
        """
        check_identity(state["identity"], self.identity)
        self.method.load_state_dict(state["method"])
        self.results.update(state.get("results", {}))  # states of earlier versions lack it
        for labels in self.method.labels.values():
            labels.check(len(self.engine.images or ()), len(self.engine.clip.classnames))

    # ---------------------------------------------------------------- outputs

    @property
    def calibrated(self) -> bool:
        """Whether the mean confidence of the model estimates its accuracy."""
        guarded = self.spec.trainer in CALIBRATED and self.cfg.TRAIN.GUARD and self.method.trains
        return guarded and self.settings.clean_rule == "softmax"

    @property
    def seconds(self) -> float:
        """Duration of the run so far. That of a resumed run with two peers includes the time before it was stopped."""
        begun = [self.context.started, *([self.log.started] if self.log else [])]
        return time.monotonic() - min(begun)

    def write_summary(self, folder: Path, **more: Any) -> None:
        """Write `summary.json`.

        Args:
            folder: Output folder.
            **more: Entries of the driver. They replace entries of the same name; others are appended.
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
            **({} if self.method.trains else UNTRAINED_ENTRY),
            "calibrated": self.calibrated,
            "seconds": round(self.seconds, 1),
            "results": self.results,
            "device": str(self.device),
            "versions": versions(self.task.toolbox),
            "config": self.cfg.dump(),
        }
        write_json(folder / "summary.json", {**content, **more})

    def model(self, **about: Any) -> AdaptedModel | None:
        """Return the finished model; None if the method has no predictor made of image classifiers.

        Args:
            **about: Further facts to store with the model, besides trainer, seed and settings.
        """
        predictor = self.engine.predictor
        if predictor is None:
            return None
        name = portable_name(self.cfg.MODEL.BACKBONE.NAME)
        frozen_stages = max(0, self.cfg.MODEL.BACKBONE.FROZEN_STAGES)
        images = self.task.images if self.spec.label_free else None
        declared = self.spec.keys
        values = keys(self.settings, self.spec.section) if declared else {}
        chosen = {key: value.default for key, value in values.items()}
        origin = {
            "trainer": self.spec.trainer,
            "dataset": self.task.title,
            "unlabeled_images": 0 if images is None else len(images),
            "labels_used": 0,
            "calibrated": self.calibrated,
            "seed": self.cfg.SEED,
            "settings": chosen,
            "not_default": {key: value for key, value in chosen.items() if value != declared[key].default},
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

    def write_model(self, folder: Path, **about: Any) -> None:
        """Write the finished model to a subfolder, if there is one."""
        model = self.model(**about)
        if model is not None and self.world.is_main:
            save(model, folder / FOLDER)

    def write_image_facts(self, folder: Path) -> None:
        """Write the frozen CLIP's labels, features and neighbours of the unlabeled images, for a two-peer report."""
        if not self.spec.two_peers:
            return
        clip, views = self.engine.clip, getattr(self.settings, "label_views", 1)

        def write() -> None:
            features, text = self.engine.clip_features(views), clip.zero_shot_text()
            write_frozen(folder, clip.classnames, features, text, clip.scale)

        self.engine.decide(write)
