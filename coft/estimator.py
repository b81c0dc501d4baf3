"""`CoFTClassifier`: `coft.adapt` in scikit-learn's form."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from .adapted import Adapted
from .api import adapt
from .core.errors import UserError
from .core.forms import Anything, Misfit, mapping
from .engine.class_names import Given


class CoFTClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of images that is fitted without a label.

    Args:
        classes: Names of the classes; see `coft.adapt`.
        method: "coft" or "coft+".
        backbone: A CLIP by its name or path.
        settings: Settings by their names in Python, such as {"phase1__epochs": 2}.
        random_state: Seed of everything random, a whole number.
        output: Folder for the model and its labels.
        progress: Whether to show a bar.

    Attributes:
        adapted_: What `coft.adapt` returned.
        classes_: Names of the classes, in the order of the columns of `predict_proba`. Shape (C,).
        labels_: A row for each image of `fit`; see `Adapted`.

    Example:
        ```python
        classifier = coft.CoFTClassifier(["tabby cat", "golden retriever"]).fit(images)
        print(classifier.predict_proba(new_images))
        ```
    """

    adapted_: Adapted
    classes_: np.ndarray
    labels_: pd.DataFrame

    def __init__(
        self,
        classes: Given = (),
        *,
        method: str = "coft",
        backbone: str = "photo",
        settings: Mapping[str, Any] | None = None,
        random_state: int = 1,
        output: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> None:
        self.classes = classes
        self.method = method
        self.backbone = backbone
        self.settings = settings
        self.random_state = random_state
        self.output = output
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> CoFTClassifier:
        """Adapt the backbone to images.

        Args:
            X: Images, as of `coft.adapt`: a folder, paths, Pillow's, arrays, a Dataset.
            y: Not read.

        Raises:
            UserError: Naming what cannot be read, or a setting that is wrong.
        """
        settings = {} if self.settings is None else self.settings
        try:
            mapping(Anything()).check(settings, "settings")
        except Misfit as error:
            raise UserError(f"{error}; give settings by their names") from error
        if reserved := sorted(settings.keys() & inspect.signature(adapt).parameters.keys()):
            raise UserError(f"settings has {reserved[0]!r}, which is no setting; it is an argument, or of fit")
        options = {"method": self.method, **settings}
        args = X, self.classes, self.backbone, self.output, self.random_state, self.progress
        self.adapted_ = adapt(*args, **options)
        self.classes_, self.labels_ = self.adapted_.classes_, self.adapted_.labels_
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Name of the likeliest class of each image. Shape (n,).

        Raises:
            NotFittedError: Before `fit`.
            UserError: If an image cannot be read; it is named.
        """
        check_is_fitted(self)
        return self.adapted_.predict(X)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes. Shape (n, C), float32.

        Raises:
            NotFittedError: Before `fit`.
            UserError: If an image cannot be read; it is named.
        """
        check_is_fitted(self)
        return self.adapted_.predict_proba(X)

    def __sklearn_tags__(self) -> Any:
        """Say that X is images and that no y is needed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string = False, True, True
        tags.target_tags.required = False
        return tags
