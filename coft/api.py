"""`coft.adapt`: fine-tune CLIP on unlabeled images, from Python, without Dassl.

Results are bit-identical to those of `bash scripts/coft.sh folder --images DIR --classes ...` with the same settings
and seed.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from coft.adapted import LABELS, Adapted
from coft.core.errors import UserError, first_line
from coft.core.experiment import CONFIG, claim
from coft.core.files import check_not_inside, ensure_folder, given_path, writing
from coft.core.finite import check_models
from coft.core.lock import exclusive_lock
from coft.core.progress import bar, lines, log_file, user_log
from coft.core.progress import progress as bars
from coft.core.sanitize import some_of
from coft.core.settings import shown
from coft.core.untrusted import read_table
from coft.engine import state
from coft.engine.class_names import CLASSES, GENERIC, Classes, Given, class_list, given_classes, write_classes
from coft.engine.config import Config, build_config, spec_of
from coft.engine.diagnostics import Diagnostics
from coft.engine.inputs import unlabeled_images
from coft.engine.loop import fit
from coft.engine.messages import report_done, report_estimate, report_names, report_next
from coft.engine.optimizers import light_optimizer
from coft.engine.predictions import write_duplicates, write_predictions, write_skipped
from coft.engine.run_log import PSEUDO_LABELS, epoch_line
from coft.engine.session import DriverContext, Session, Task
from coft.engine.specs import MethodSpec
from coft.images.batches import UnlabeledImages
from coft.images.image_sources import ImageSet, collect_images, is_path
from coft.inference.locate_model import DESCRIPTION, FOLDER
from coft.inference.model import AdaptedModel
from coft.report.write import warn_of_report, write_report

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
    """Fine-tune a CLIP model on unlabeled images.

    Args:
        images: A folder, flat or nested; paths; Pillow images; arrays or tensors; or a torch Dataset
            (`coft.images.image_sources.sequence_of` lists the shapes). Duplicates of an image are trained on once.
        classes: Class names: a list, one text with commas between the names, or a file with one name per line; or a
            mapping from each name to sentences that describe the class, which CoFT+ reads. "sofa | couch" is the class
            "sofa" with a synonym.
        backbone: Name or path of a CLIP model, as for `--backbone`.
        output: Folder for the model and its labels. With it, a run that was stopped resumes when called again.
        seed: Seed of all random numbers. The state of the global generators is neither read nor changed.
        progress: Whether to report progress: with a bar for the whole run on a terminal or in a notebook, otherwise
            with occasional lines on standard error. If the program has set up logging, the lines go to its log.
        method: "coft" or "coft+".
        **settings: Keys of the config in lower case, with two underscores for a dot: `phase1__epochs=2`,
            `input__size=(128, 128)`. Settings of the method are written without the name of their section.

    Returns:
        The model, with a label for each image.

    Raises:
        UserError: If an input cannot be read, or a setting is wrong; the message names it.

    Example:
        ```python
        adapted = coft.adapt("photos", ["tabby cat", "golden retriever"], output="pets")
        print(adapted.labels_.sort_values("confidence").head())
        ```
    """
    spec, names = spec_of(method), given_classes(classes)
    if not isinstance(progress, bool):
        raise UserError(f"progress is {shown(progress)}; expected True or False")
    cfg = build_config(spec, backbone, seed, "" if output is None else str(given_path(output, "output")), settings)
    spec.settings_of(cfg)  # report mistakes before images are read
    if output is not None and is_path(images) and (folder := given_path(images, "images")).is_dir():
        check_not_inside(folder, Path(cfg.OUTPUT_DIR), "output")
    untouched = torch.random.fork_rng(devices=[])  # models are initialised with random weights
    with bars(progress), lines(progress), untouched:
        return Run(cfg, spec, names, collect_images(images)).adapted()


class Run:
    """One run of a method on the images passed to `adapt`.

    Args:
        cfg: All settings.
        spec: The method.
        classes: Class names, with synonyms and descriptions.
        image_set: The images.
    """

    def __init__(self, cfg: Any, spec: MethodSpec, classes: Classes, image_set: ImageSet) -> None:
        self.cfg, self.spec, self.image_set, self.classes = cfg, spec, image_set, classes
        self.started = time.monotonic()
        self.folder = Path(cfg.OUTPUT_DIR) if cfg.OUTPUT_DIR else None
        hashes = dict(zip(image_set.names, image_set.digests, strict=True))
        self.images: UnlabeledImages = unlabeled_images(cfg, image_set.distinct(), hashes, image_set.read)

    def adapted(self) -> Adapted:
        """Train or resume, predict, and write the results if there is an output folder; load a finished run."""
        if not self.folder:
            return self._made()
        ensure_folder(self.folder, "output")
        with exclusive_lock(self.folder):
            names = class_list(self.classes, self.classes.descriptions)
            self.cfg.DATASET = Config(NAME="Folder", DIGEST=self.images.digest, NAMES=names)
            claim(self.cfg, "output")
            if (self.folder / FOLDER / DESCRIPTION).is_file():
                return self._finished(self.folder)
            with log_file(self.folder / "log.txt"):
                return self._made()

    def _finished(self, folder: Path) -> Adapted:
        if not (folder / LABELS).is_file():
            raise UserError(
                f"output folder {folder} holds a finished run without its {LABELS}; remove the folder to run again, or "
                f"use the model by coft predict"
            )
        user_log.info("This run is finished; its model and labels are in %s", folder)
        device = "cuda" if torch.cuda.is_available() and self.cfg.USE_CUDA else "cpu"
        finished = Adapted.load(folder, device, trust_jit=self.cfg.MODEL.BACKBONE.TRUST_JIT)
        if list(finished.model.classes) != self.classes.names:
            raise UserError(f"output folder {folder}: its model has other classes than its {CONFIG}; remove the folder")
        finished.labels_ = self._in_given_order(finished.labels_, folder)
        return finished

    def _in_given_order(self, labels: pd.DataFrame, folder: Path) -> pd.DataFrame:
        """Return the labels of a finished run for the images as they are passed now, in another order or place.

        Both runs have the same contents, so `pseudo_labels.csv`, whose order is that of the contents, tells which image
        was which.
        """
        column, first = labels.columns[0], self.image_set.first_of_content
        rows = labels.assign(**{column: labels[column].astype(str)}).drop_duplicates(column).set_index(column)
        try:
            before = read_table(folder / PSEUDO_LABELS)["path"]
            named = dict(zip(self.images.pool.paths, before, strict=True))  # the name in the finished run
            ordered = rows.loc[[named[first[digest]] for digest in self.image_set.digests]].reset_index()
        except (OSError, ValueError, LookupError) as error:
            raise UserError(
                f"output folder {folder}: its tables do not fit these images ({first_line(error)}); remove the folder "
                f"to run again, or use the model by coft predict"
            ) from error
        return ordered.assign(**{column: self._names()})

    def _names(self) -> list[str] | list[int]:
        names = self.image_set.names
        return names if self.image_set.are_files else list(map(int, names))

    def _made(self) -> Adapted:
        write_skipped(self.folder, self.image_set.skipped)
        write_duplicates(self.folder, dict(zip(self.image_set.names, self.image_set.digests, strict=True)))
        unknown, described = Diagnostics(torch.full((len(self.images),), -1)), self.classes.descriptions
        task = Task(self.classes, GENERIC, images=self.images, diagnostics=unknown, descriptions=described)
        optim = self.cfg.OPTIM
        rates = {"lr": optim.LR, "momentum": optim.MOMENTUM, "weight_decay": optim.WEIGHT_DECAY}
        context = DriverContext(make_light=partial(light_optimizer, **rates), started=self.started)
        session = self.session = Session(self.cfg, self.spec, task, self.folder, context)
        done = state.restore(self.folder, session) if self.folder else 0
        if done and self.folder and session.log:
            session.log.resume(done, self.folder)
        fit(session, done, self._ended)
        model = session.model(test_images=len(self.image_set), settings=self.cfg.tree())
        assert model is not None
        trusted = self.cfg.MODEL.BACKBONE.TRUST_JIT
        result = Adapted(model, self._labels(model), self.folder, trust_jit=trusted)
        if self.folder:
            with writing(self.folder):
                self._write_results(self.folder, result.labels_)
            result.save(self.folder)
            state.remove(self.folder)
        self._tell(result.labels_)
        return result

    def _tell(self, labels: pd.DataFrame) -> None:
        counts = some_of([f"{name} {count}" for name, count in labels["class"].value_counts().items()])
        run = shlex.quote(str(self.folder or "RUN"))
        following = [f"coft predict {run} IMAGES --link {run}/sorted    # sort images into a folder for each class"]
        if self.image_set.are_files:
            following.insert(0, f"coft review {run}    # change names of classes")
        report_done(self.session.seconds, counts, untrained=not self.session.method.trains)
        doubtful = report_names(self.folder)
        report_estimate(float(labels["confidence"].mean()), self.session.calibrated, doubtful)
        report_next(self.folder, following if self.folder else ())

    def _ended(self, epoch: int) -> None:
        method, log_of_run = self.session.method, self.session.log
        check_models(method.models, f"epoch {epoch + 1}")
        stage = f"phase{method.phase(epoch)}"
        if not self.folder or log_of_run is None:
            log.info("%s", epoch_line(stage, epoch + 1, method.epochs, {}, time.monotonic() - self.started))
            return
        with writing(self.folder):
            log_of_run.epochs = method.epochs
            log_of_run.add(epoch + 1, stage)
            state.write(self.folder, epoch + 1, self.session)

    # ---------------------------------------------------------------- results

    def _labels(self, model: AdaptedModel) -> pd.DataFrame:
        """Predict each input image; see `Adapted.labels_`."""
        pool, image_set = self.images.pool, self.image_set
        places = {name: index for index, name in enumerate(pool.paths)}
        first = image_set.first_of_content
        index = torch.tensor([places[first[digest]] for digest in image_set.digests])
        batches = bar(index.split(self.cfg.DATALOADER.TEST.BATCH_SIZE), "predict images")
        predictions = [
            model.predict(model.batch([model.view(pool.image(i)) for i in part.tolist()])) for part in batches
        ]
        confidence, label = torch.cat([part.probabilities.cpu() for part in predictions]).max(dim=1)
        p_clean = [part.p_clean.cpu() for part in predictions if part.p_clean is not None]
        clean = (
            torch.cat(p_clean).gather(1, label[:, None])[:, 0] if p_clean else torch.full_like(confidence, torch.nan)
        )
        pseudo_labels = self.session.method.labels.values()
        kept = torch.stack([labels.keep[index] & (labels.label[index] == label) for labels in pseudo_labels]).any(dim=0)
        kept &= self.session.method.trains
        return pd.DataFrame(
            {
                "path" if image_set.are_files else "number": self._names(),
                "class": [self.classes.names[number] for number in label.tolist()],
                "confidence": confidence.numpy(),
                "p_clean": clean.numpy(),
                "kept": kept.numpy(),
            }
        )

    def _write_results(self, folder: Path, labels: pd.DataFrame) -> None:
        """Write `predictions.csv`, `classes.txt`, `summary.json`, and for image files `report.html`."""
        paths = labels.iloc[:, 0].tolist()  # or numbers
        classes, confidence = labels["class"].tolist(), labels["confidence"].tolist()
        write_predictions(folder / "predictions.csv", paths, classes, confidence)
        write_classes(folder / CLASSES, self.classes)
        assert self.session.log is not None
        self.session.write_summary(
            folder,
            unlabeled="images that were given, which are predicted as well",
            images=self.image_set.origin,
            results={
                **self.session.log.results(),
                "predicted": len(labels),
                "confidence_predicted": 100 * float(labels["confidence"].mean()),
            },
        )
        if self.image_set.are_files:
            try:
                self.session.write_image_facts(folder)
                write_report(folder)
            except Exception as error:  # the results are on disk already
                warn_of_report(error)
