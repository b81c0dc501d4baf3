"""`CoFTClassifier`: `coft.adapt` as a scikit-learn estimator."""

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
from .core.schemas import Anything, SchemaError, mapping
from .engine.class_names import Given


class CoFTClassifier(ClassifierMixin, BaseEstimator):
    """An image classifier that is fitted without labels.

    Args:
        classes: Class names; see `coft.adapt`.
        method: "coft" or "coft+".
        backbone: Name or path of a CLIP model.
        settings: Settings by their Python names, such as {"phase1__epochs": 2}.
        random_state: Seed of all random numbers, an integer.
        output: Folder for the model and its labels.
        progress: Whether to report progress; see `coft.adapt`.

    Attributes:
        adapted_: Result of `coft.adapt`.
        classes_: Class names, sorted, as scikit-learn's metrics expect. Shape (C,).
        labels_: One row per image that was passed to `fit`; see `Adapted`.

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
            X: Images, in any form that `coft.adapt` takes: a folder, paths, Pillow images, arrays, a Dataset.
            y: Ignored.

        Raises:
            UserError: If an input cannot be read, or a setting is wrong; the message names it.
        """
        settings = {} if self.settings is None else self.settings
        try:
            mapping(Anything()).check(settings, "settings")
        except SchemaError as error:
            raise UserError(f"{error}; give settings by their names") from error
        if reserved := sorted(settings.keys() & inspect.signature(adapt).parameters.keys()):
            raise UserError(
                f"settings has {reserved[0]!r}, which is no setting; give it as an argument of the classifier or of fit"
            )
        options = {"method": self.method, **settings}
        args = X, self.classes, self.backbone, self.output, self.random_state, self.progress
        self.adapted_ = adapt(*args, **options)
        self.classes_, self.labels_ = self.adapted_.classes_[self._order()], self.adapted_.labels_
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the name of the most likely class of each image. Shape (n,).

        Raises:
            NotFittedError: If called before `fit`.
            UserError: If an image cannot be read; the message names it.
        """
        check_is_fitted(self)
        return self.adapted_.predict(X)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the class probabilities of each image, in the order of `classes_`. Shape (n, C), float32.

        Raises:
            NotFittedError: If called before `fit`.
            UserError: If an image cannot be read; the message names it.
        """
        check_is_fitted(self)
        return self.adapted_.predict_proba(X)[:, self._order()]

    def _order(self) -> np.ndarray:
        return np.argsort(self.adapted_.classes_)

    def __sklearn_tags__(self) -> Any:
        """Declare that X holds images and that no y is required."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string = False, True, True
        tags.target_tags.required = False
        return tags
