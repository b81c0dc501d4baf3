"""CoFTClassifier keeps to scikit-learn's conventions; the list below says which of its checks are for images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

import coft
from tests.coft.run.conftest import SHORT
from tests.conftest import CLASSNAMES

# Of scikit-learn's checks, those that need no table of numbers. The others fit on random tables of shape (n, features).
CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_do_not_raise_errors_in_init_or_set_param",
    "check_mixin_order",
    "check_estimators_unfitted",
)


@pytest.mark.parametrize("check", [name for name in CHECKS if hasattr(estimator_checks, name)])
def test_a_check_of_scikit_learn(check: str) -> None:
    getattr(estimator_checks, check)("CoFTClassifier", coft.CoFTClassifier(CLASSNAMES))


def test_check_estimator_finds_nothing_wrong() -> None:
    with pytest.warns(UserWarning, match="Can't test estimator"):
        results = check_estimator(coft.CoFTClassifier(CLASSNAMES), on_fail=None)
    assert results and {row["status"] for row in results} <= {"passed", "skipped"}


def test_fit_without_y(pictures: list[Image.Image], checkpoints: dict[str, Path]) -> None:
    settings = dict(SHORT)
    estimator = coft.CoFTClassifier(CLASSNAMES, backbone=str(checkpoints["resnet"]), settings=settings)
    with pytest.raises(NotFittedError):
        estimator.predict(pictures)
    assert estimator.fit(pictures) is estimator and settings == SHORT
    wrong = clone(estimator).fit(pictures, y=["nonsense"] * len(pictures))
    assert np.array_equal(wrong.predict_proba(pictures), estimator.predict_proba(pictures))
    assert list(estimator.classes_) == list(CLASSNAMES)
    predicted = estimator.predict(np.stack([np.asarray(picture) for picture in pictures]))
    assert set(predicted) <= set(CLASSNAMES) and list(predicted) == list(estimator.labels_["class"])
    assert estimator.score(pictures, predicted) == 1.0
