"""The result of `coft.adapt`: a model, and its predictions for the images that it was adapted to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coft.core.errors import UserError, first_line
from coft.core.files import given_path, write_table, writing
from coft.core.progress import bar
from coft.core.settings import shown
from coft.core.untrusted import MISSING, read_table
from coft.inference.export.export_options import ExportOptions
from coft.inference.export.sample import Sample, existing_files, sample, step_for, views_of
from coft.inference.export.write import export
from coft.inference.locate_model import FOLDER
from coft.inference.model import AdaptedModel
from coft.inference.store import load, save
from coft.report.write import write_report

from .images.image_sources import count_of, holds_paths, item_of, path_of, sequence_of

LABELS = "labels.csv"


def whole_batch(size: Any) -> int:
    """Validate a batch size that a caller passes, and return it as an int.

    Raises:
        UserError: If it is not a whole number of at least 1.
    """
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise UserError(f"batch_size is {shown(size)}; expected a whole number of at least 1")
    return int(size)


class Adapted:
    """A CLIP model that was adapted to unlabeled images.

    Args:
        model: The model.
        labels: Predictions for the images; see `labels_`.
        folder: Output folder of the run, if it has one.
        trust_jit: Whether the backbone may be a TorchScript file, which can hold code.

    Attributes:
        model: The model: encoders, class vectors and preprocessing.
        folder: Folder of the run: the output of `coft.adapt`, or the folder that `load` read; None without one.
        labels_: One row per input image: `path` (absolute; `number` for images in memory), `class`, `confidence`
            (probability of the class), `p_clean` (probability that the class is right, by the negative prompts), `kept`
            (whether a peer's last filter kept this class as the image's pseudo-label).

    Example:
        ```python
        loaded = coft.Adapted.load("pets")
        print(loaded.predict(["new/1.jpg", "new/2.jpg"]))
        ```
    """

    def __init__(
        self, model: AdaptedModel, labels: pd.DataFrame, folder: Path | None = None, *, trust_jit: bool = False
    ) -> None:
        self.model = model
        self.labels_ = labels
        self.folder = folder
        self._trust_jit = trust_jit

    def __repr__(self) -> str:
        return f"Adapted({len(self.labels_)} images, {len(self.classes_)} classes, {self.model.backbone.name})"

    @property
    def classes_(self) -> np.ndarray:
        """Class names, in the order of the columns of `predict_proba`. Shape (C,)."""
        return np.array(self.model.classes, dtype=object)

    def predict(self, images: Any, batch_size: int = 64) -> np.ndarray:
        """Return the name of the most likely class of each image. Shape (n,).

        Args:
            images: A folder, paths, Pillow images, arrays or tensors, or a torch Dataset.
            batch_size: Number of images that go through the encoders at a time.

        Raises:
            UserError: If an image cannot be read; the message names it.
        """
        return self.classes_[self.predict_proba(images, batch_size).argmax(axis=1)]

    def predict_proba(self, images: Any, batch_size: int = 64) -> np.ndarray:
        """Return the class probabilities of each image. Shape (n, C), float32.

        Args:
            images: A folder, whose images are read in the order of their paths; or paths, Pillow images, arrays or
                tensors, or a torch Dataset.
            batch_size: Number of images that go through the encoders at a time.

        Raises:
            UserError: If an image cannot be read; the message names it.
        """
        items, batch_size = sequence_of(images), whole_batch(batch_size)
        parts = [np.zeros((0, len(self.classes_)), dtype=np.float32)]
        count = count_of(items)
        for start in bar(range(0, count, batch_size), "predict images"):
            batch = self._batch(items, range(start, min(start + batch_size, count)))
            parts.append(self.model.predict(batch).probabilities.cpu().numpy())
        return np.concatenate(parts)

    def _batch(self, items: Any, chosen: Iterable[int]) -> Tensor:
        """Return the preprocessed images at the `chosen` positions of a sequence. Shape (n, 3, size, size)."""
        paths, view = holds_paths(items), self.model.view
        return self.model.batch([view(path_of(items, i) if paths else item_of(items, i)) for i in chosen])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model (safetensors and JSON) and its labels to a folder. A model that it holds is replaced.

        Raises:
            UserError: If the folder cannot be written to.
        """
        place = given_path(folder, "folder")
        with writing(place):
            write_table(self.labels_, place / LABELS)
        save(self.model, place / FOLDER)  # last, so that a folder with a model is complete

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], device: str | torch.device = "cpu", *, trust_jit: bool = False
    ) -> Adapted:
        """Load a model that `save` or a run has written. `labels_` is empty if the folder has no `labels.csv`.

        Args:
            folder: Folder that was passed to `save`, or the output folder of a run.
            device: Device of the model.
            trust_jit: Whether the backbone may be a TorchScript file, which can hold code.

        Raises:
            UserError: If the folder has no model, or a damaged one, or the device is not available.
        """
        place = given_path(folder, "folder")
        try:
            computes_on = torch.device(device)
            torch.zeros(1, device=computes_on).item()
        except (RuntimeError, AssertionError, TypeError) as error:
            raise UserError(
                f"device {device!r} is not available ({first_line(error)}); give 'cpu' or 'cuda'"
            ) from error
        try:
            labels = read_labels(place / LABELS)
        except MISSING:
            labels = NO_LABELS
        except (OSError, ValueError) as error:
            raise UserError(f"{place / LABELS}: cannot be read ({error}); remove it") from error
        return cls(load(place, computes_on, trust_jit=trust_jit), labels.copy(), place, trust_jit=trust_jit)

    def export(
        self,
        folder: str | os.PathLike[str],
        to: str = "open_clip",
        *,
        peers: str = "",
        single: bool = False,
        int8: bool = False,
        images: Any = None,
    ) -> list[str]:
        """Export the model to another format, with a model card. Equivalent to the command `coft export`.

        Args:
            folder: Output folder, empty or not yet existing.
            to: Format: "open_clip", "onnx" or "head".
            peers: Peers to export: "average", "both", "a" or "b"; "" for the default of `to`.
            single: Whether to take the encoder that gives this model's classes most often.
            int8: Whether to write a second ONNX file in int8.
            images: Images on which the export is compared with this model, in any form that `coft.adapt` takes.
                Default: images of the run's folder, or else the files of `labels_`.

        Returns:
            The measurements, one line each.

        Raises:
            UserError: If the folder cannot be written to, or the model cannot be exported to the format. Nothing is
                written then.
        """
        export_options, model = ExportOptions(to, peers, single, int8), self._plain()
        return export(model, given_path(folder, "folder"), export_options, partial(self._sample, model, images))

    def _plain(self) -> AdaptedModel:
        """Return the model on the CPU, in fp32."""
        if self.model.device.type == "cpu" and self.model.precision == "fp32":
            return self.model
        with TemporaryDirectory() as place:
            save(self.model, Path(place))
            return load(Path(place), precision="fp32", trust_jit=self._trust_jit)

    def _sample(self, model: AdaptedModel, images: Any) -> Sample:
        if images is not None:
            items = sequence_of(images)
            positions = range(count_of(items))[:: step_for(count_of(items))]
            return Sample(self._batch(items, positions).cpu()) if positions else Sample()
        run_sample = sample(model, self.folder, []) if self.folder else Sample()
        if run_sample.images is not None:
            return run_sample
        return replace(run_sample, images=views_of(model, existing_files(self.labels_.get("path", [])))[0])

    def report(self) -> Path:
        """Write `report.html` of the run again. Equivalent to the command `coft report`.

        Returns:
            Path of the report.

        Raises:
            UserError: If the run has no folder, or is incomplete.
        """
        if self.folder is None:
            raise UserError("report: the run has no output folder; give coft.adapt an output folder")
        return write_report(self.folder)


NO_LABELS = pd.DataFrame(columns=["path", "class", "confidence", "p_clean", "kept"])


def read_labels(path: Path) -> pd.DataFrame:
    """Read `labels_` from a file. A path or class called "NA" is kept as text, not read as a missing value."""
    dtypes = {"path": str, "class": str, "confidence": "float32", "p_clean": "float32"}
    labels: pd.DataFrame = read_table(path, dtype=dtypes, na_values={"p_clean": [""]})
    if missing := [name for name in NO_LABELS if name not in labels and name != "path"]:
        raise ValueError(f"it has no column {missing[0]!r}")
    return labels
