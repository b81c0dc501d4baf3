"""What `coft.adapt` returns: a model, and what it says of the images that it was adapted to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from coft.runtime.errors import UserError
from coft.runtime.files import replacing, writing
from coft.runtime.progress import bar
from coft.use.model import AdaptedModel
from coft.use.store import FOLDER, load, save

from .given import holds_paths, image_of, sequence_of

LABELS = "labels.csv"


class Adapted:
    """A CLIP that was adapted to images without a label.

    Args:
        model: The model.
        labels: See `labels_`.

    Attributes:
        model: What predicts: encoders, vectors of the classes, preprocessing.
        labels_: A row for each image that was given: `path` (or `number`, of images in memory), `class`, `confidence`
            (the probability of the class), `p_clean` (how likely the class is right, by the negative prompts), `kept`
            (whether a peer's last filter kept this class as the image's pseudo-label).
    """

    def __init__(self, model: AdaptedModel, labels: pd.DataFrame) -> None:
        self.model = model
        self.labels_ = labels

    def __repr__(self) -> str:
        return f"Adapted({len(self.labels_)} images, {len(self.classes_)} classes, {self.model.origin.name})"

    @property
    def classes_(self) -> np.ndarray:
        """Names of the classes, in the order of the columns of `predict_proba`. Shape (C,)."""
        return np.array(self.model.classes, dtype=object)

    def predict(self, images: Any, batch_size: int = 64) -> np.ndarray:
        """Name of the likeliest class of each image. Shape (n,).

        Args:
            images: As of `coft.adapt`.
            batch_size: Images that go through the encoders at a time.

        Raises:
            UserError: If an image cannot be read; it is named.
        """
        return self.classes_[self.predict_proba(images, batch_size).argmax(axis=1)]

    def predict_proba(self, images: Any, batch_size: int = 64) -> np.ndarray:
        """Probabilities of the classes. Shape (n, C), float32.

        Args:
            images: As of `coft.adapt`; a folder's in order of their paths.
            batch_size: Images that go through the encoders at a time.

        Raises:
            UserError: If an image cannot be read; it is named.
        """
        items = sequence_of(images)
        paths = holds_paths(items)
        parts = [np.zeros((0, len(self.classes_)), dtype=np.float32)]
        for start in bar(range(0, len(items), batch_size), "predict images"):
            chosen = range(start, min(start + batch_size, len(items)))
            views = [self.model.view(items[i] if paths else image_of(items[i], str(i))) for i in chosen]
            parts.append(self.model.predict(self.model.batch(views)).probabilities.cpu().numpy())
        return np.concatenate(parts)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model (safetensors and JSON) and its labels to a folder, which may hold an earlier one.

        Raises:
            UserError: If it cannot be written.
        """
        with writing(Path(folder)), replacing(Path(folder) / LABELS) as draft:
            self.labels_.to_csv(draft, index=False, errors="surrogateescape")
        save(self.model, Path(folder) / FOLDER)  # last: where it is, all is there

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> Adapted:
        """Load what `save` wrote, or a run's model; a run of the commands has no `labels_` here.

        Args:
            folder: Of `save`, or output folder of a run.
            device: Where it computes.

        Raises:
            UserError: If there is no model, or it is damaged.
        """
        path = Path(folder) / LABELS
        try:
            labels = read_labels(path) if path.is_file() else NO_LABELS
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); remove it") from error
        return cls(load(Path(folder), device), labels.copy())


NO_LABELS = pd.DataFrame(columns=["path", "class", "confidence", "p_clean", "kept"])


def read_labels(path: Path) -> pd.DataFrame:
    """Read `labels_` from a file; texts such as "NA" are names like any other."""
    texts = {"path": str, "class": str}
    return pd.read_csv(
        path, dtype=texts, keep_default_na=False, na_values={"p_clean": [""]}, encoding_errors="surrogateescape"
    )
