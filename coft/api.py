"""`coft.adapt`: fine-tune CLIP to images without a label, from Python, without Dassl.

The same settings and seed give the same bits as the command: `bash scripts/coft.sh folder --images DIR --classes ...`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from coft.backbones.backbone import ClassBackbone
from coft.backbones.descriptions import (
    Descriptions,
    described_features,
    descriptions_of,
    given_descriptions,
    load_descriptions,
)
from coft.backbones.load import fingerprint
from coft.backbones.prompts import all_names
from coft.backbones.stages import hold_frozen_in_bf16
from coft.backbones.unseen import warn_of_unseen
from coft.core.disk_tables import tables_in
from coft.core.experiment import claim, versions
from coft.core.files import check_apart, ensure_folder, writing
from coft.core.finite import check_models
from coft.core.lock import sole
from coft.core.precision import PREDICTIONS
from coft.core.progress import bar, lines
from coft.core.progress import progress as bars
from coft.core.tables import in_memory
from coft.engine.diagnostics import Diagnostics
from coft.engine.predictions import write_skipped
from coft.engine.run_log import RunLog, epoch_line
from coft.images.batches import UnlabeledImages
from coft.inference.locate_model import DESCRIPTION, FOLDER
from coft.inference.model import AdaptedModel, Origin
from coft.inference.store import portable_name
from coft.method.optimizers import light_optimizer
from coft.method.protocol import Runtime

from .adapted import Adapted
from .engine import state
from .engine.backbone import forward_type, identity_of, load_backbone, precision_of
from .engine.class_names import GENERIC, Classes, Given, class_list, given_classes
from .engine.inputs import unlabeled_images
from .engine.loop import train
from .engine.results import not_default, write_results
from .engine.settings import Config, Kind, kind_of, settings_of, settle
from .images.image_sources import GivenImages, given_images, is_place

log = logging.getLogger(__name__)


def adapt(
    images: Any,
    classes: Given,
    backbone: str = "photo",
    output: str | os.PathLike[str] | None = None,
    seed: int = 1,
    progress: bool = True,
    *,
    method: str = "coft",
    **settings: Any,
) -> Adapted:
    """Fine-tune a CLIP to images of which nobody has said the class.

    Args:
        images: A folder, flat or nested; paths; images of Pillow; arrays or tensors; or a torch Dataset
            (`coft.images.image_sources.sequence_of` has the shapes). An image that comes several times is learned from
            once.
        classes: Names of the classes: texts, one text with commas, a file with a name on each line; or sentences that
            describe each class, by its name, which CoFT+ reads. "sofa | couch" is one class, sofa, with a synonym.
        backbone: A CLIP by its name or path, as of `--backbone`.
        output: Folder for the model and its labels. With one, a run that was stopped goes on: call it again.
        seed: Of everything random. The state of the global generators is neither read nor changed.
        progress: Whether to show a bar with the time that is left, on a terminal or in a notebook; elsewhere a line for
            each epoch on standard error. A program that has set up logging gets the lines in its log instead.
        method: "coft" or "coft+".
        **settings: Those of docs/settings.md in lower case, two underscores for a dot: `phase1__epochs=2`,
            `input__size=(128, 128)`. Those of the method go without their section.

    Returns:
        The model, with a label for each image.

    Raises:
        UserError: Naming what cannot be read, or a setting that is wrong.
    """
    kind, names = kind_of(method), given_classes(classes)
    cfg = settle(kind, backbone, seed, "" if output is None else str(Path(output).expanduser()), settings)
    settings_of(kind, cfg)  # a mistake is to be known before images are read
    if output is not None and is_place(images) and Path(images).expanduser().is_dir():
        check_apart(Path(images).expanduser(), Path(cfg.OUTPUT_DIR), "output")
    untouched = torch.random.fork_rng(devices=[])  # models are built with random weights at first
    with bars(progress), lines(progress), untouched:
        return Run(cfg, kind, names, given_images(images)).adapted()


class Run:
    """One run of a method.

    Args:
        cfg: All settings.
        kind: The method.
        classes: Names, with synonyms, and sentences that describe them.
        given: The images.
    """

    def __init__(self, cfg: Any, kind: Kind, classes: Classes, given: GivenImages) -> None:
        self.cfg, self.kind, self.given, self.started = cfg, kind, given, time.monotonic()
        self.classnames, self.classes = classes.names, classes
        self.folder = Path(cfg.OUTPUT_DIR) if cfg.OUTPUT_DIR else None
        self.own = settings_of(kind, cfg)
        hashes = dict(zip(given.names, given.digests, strict=True))
        self.images: UnlabeledImages = unlabeled_images(cfg, given.distinct(), hashes, given.read)

    def adapted(self) -> Adapted:
        """Train, or go on; predict; and write what there is to write."""
        if not self.folder:
            return self._made()
        ensure_folder(self.folder, "output")
        with sole(self.folder):
            self.cfg.DATASET = Config(NAME="Folder", DIGEST=self.images.digest, NAMES=self._class_list)
            claim(self.cfg, "output")
            write_skipped(self.folder / "skipped.csv", self.given.skipped)
            if (self.folder / FOLDER / DESCRIPTION).is_file():
                return Adapted.load(self.folder, self.device)
            return self._made()

    def _made(self) -> Adapted:
        self._build()
        train(self.method, self.clip_model.visual, self.runtime, self._resume(), self._ended)
        result = Adapted(self._model(), pd.DataFrame(), self.folder)
        result.labels_ = self._labels(result.model)
        if self.folder:
            with writing(self.folder):
                write_results(self, self.folder, result.labels_)
            result.save(self.folder)
            state.remove(self.folder)
        return result

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device("cuda" if torch.cuda.is_available() and self.cfg.USE_CUDA else "cpu")

    # ---------------------------------------------------------------- building

    def _build(self) -> None:
        cfg = self.cfg
        dtype = forward_type(self.own.prec, self.device, "prec")
        self.runtime = Runtime(
            cfg.SEED,
            self.device,
            dtype,
            scaler=torch.amp.GradScaler(self.device.type) if dtype is torch.float16 else None,
            predicts_in_bf16=self.own.prec == PREDICTIONS,
            micro_batch=cfg.TRAIN.MICRO_BATCH,
            compiler=cfg.TRAIN.COMPILE,
            allocate=tables_in(self.folder) if self.folder else in_memory,
            guard=cfg.TRAIN.GUARD,
        )
        self.clip_model = load_backbone(cfg, self.device)
        self.backbone_id = fingerprint(self.clip_model)
        if self.runtime.predicts_in_bf16:
            hold_frozen_in_bf16(self.clip_model.visual)
        self.method = self._method()

    def _method(self) -> Any:
        optim, options = self.cfg.OPTIM, {}
        rates = {"lr": optim.LR, "momentum": optim.MOMENTUM, "weight_decay": optim.WEIGHT_DECAY}
        if hasattr(self.own, "descriptions") and (describe := self._describe(self.own.descriptions.from_)):
            options["describe"] = describe
        return self.kind.make(
            self.images,
            self._backbone(),
            self.own,
            self.runtime,
            observer=self._observer(),
            make_optimizer=partial(light_optimizer, **rates),
            **options,
        )

    def _backbone(self) -> ClassBackbone:
        identity = identity_of(self.cfg, self.backbone_id, self._class_list, self.images.digest)
        warn_of_unseen(self.cfg.MODEL.BACKBONE.NAME, all_names(self.classnames, self.classes.synonyms)[0])
        return ClassBackbone(
            self.clip_model,
            self.classnames,
            GENERIC,
            identity,
            allocate=self.runtime.allocate,
            in_bf16=self.runtime.predicts_in_bf16,
            synonyms=self.classes.synonyms,
        )

    @property
    def _class_list(self) -> str:
        return class_list(self.classnames, self.classes.synonyms)

    def _describe(self, source: str) -> Callable[[float], torch.Tensor] | None:
        """What makes text features with a share of descriptions."""
        found: Descriptions | None = None
        if source == "given":
            found = given_descriptions(self, GENERIC[0])
        elif source == "auto":
            found = descriptions_of(self, "folder", GENERIC[0])
        elif source != "none":
            found = load_descriptions(Path(source))
        if found is None:
            return None
        args = self.clip_model, self.classnames, GENERIC, found
        return lambda share: described_features(*args, share, self.classes.synonyms)

    @property
    def descriptions(self) -> dict[str, list[str]]:
        """Sentences by class name, of the classes that have some."""
        return self.classes.descriptions

    # ---------------------------------------------------------------- what is written

    def _observer(self) -> RunLog | None:
        if not self.folder:
            return None
        unknown = Diagnostics(torch.full((len(self.images),), -1))
        return RunLog(self.folder, self.images.pool.paths, self.classnames, unknown, self.started)

    def _resume(self) -> int:
        if not self.folder:
            return 0
        done = state.restore(self.folder, self.method, self.runtime)
        if done:
            self.method.observer.resume(done, self.folder)
        return done

    def _ended(self, epoch: int) -> None:
        check_models(self.method.models, f"epoch {epoch + 1}")
        stage = f"phase{self.method.phase(epoch)}"
        if not self.folder:
            seconds = time.monotonic() - self.started
            log.info("%s", epoch_line(stage, epoch + 1, self.method.epochs, {}, seconds))
            return
        with writing(self.folder):
            self.method.observer.epochs = self.method.epochs
            self.method.observer.add(epoch + 1, stage)
            state.write(self.folder, epoch + 1, self.method, self.runtime)

    # ---------------------------------------------------------------- the end

    def _model(self) -> AdaptedModel:
        cfg, pool = self.cfg, self.images.pool
        name = portable_name(cfg.MODEL.BACKBONE.NAME)
        return AdaptedModel(
            tuple(self.classnames),
            GENERIC,
            Origin(name, self.backbone_id, max(0, cfg.MODEL.BACKBONE.FROZEN_STAGES)),
            self.images.inputs,
            pool.decoding,
            PREDICTIONS if self.runtime.predicts_in_bf16 else precision_of(self.runtime.dtype),
            self.method.predictor(),
            self.clip_model,
            {
                "trainer": self.kind.trainer,
                "dataset": "Folder",
                "unlabeled_images": len(self.images),
                "labels_used": 0,
                "test_images": len(self.given),
                "seed": cfg.SEED,
                "settings": cfg.tree(),
                "not_default": not_default(self.kind.trainer.upper(), self.own),
                "versions": versions("none"),
            },
        )

    def _labels(self, model: AdaptedModel) -> pd.DataFrame:
        """What the model says of each image that was given; see `Adapted`."""
        pool = self.images.pool
        places = {name: index for index, name in enumerate(pool.paths)}
        first = self.given.first_of_content
        index = torch.tensor([places[first[digest]] for digest in self.given.digests])
        batches = bar(index.split(self.cfg.DATALOADER.TEST.BATCH_SIZE), "predict images")
        found = [model.predict(model.batch([model.view(pool.image(i)) for i in own.tolist()])) for own in batches]
        confidence, label = torch.cat([own.probabilities.cpu() for own in found]).max(dim=1)
        known = [own.p_clean.cpu() for own in found if own.p_clean is not None]
        clean = torch.cat(known).gather(1, label[:, None])[:, 0] if known else torch.full_like(confidence, torch.nan)
        pseudo = [peer.labels for peer in self.method.peers.values()]
        kept = torch.stack([(own.keep[index]) & (own.label[index] == label) for own in pseudo]).any(dim=0)
        named = self.given.names if self.given.of_files else list(map(int, self.given.names))
        return pd.DataFrame(
            {
                "path" if self.given.of_files else "number": named,
                "class": [self.classnames[number] for number in label.tolist()],
                "confidence": confidence.numpy(),
                "p_clean": clean.numpy(),
                "kept": kept.numpy(),
            }
        )
