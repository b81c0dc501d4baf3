"""CoFTClassifier follows scikit-learn's conventions."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import get_scorer
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

import coft
from coft.method import guard
from tests.coft.api.conftest import SHORT
from tests.conftest import CLASSNAMES

# Checks of scikit-learn that need no table of numbers. The other checks fit on random tables; the tests below do the
# same on images.
CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_estimators_unfitted",
)


@pytest.mark.parametrize("check", [name for name in CHECKS if hasattr(estimator_checks, name)])
def test_a_check_of_scikit_learn(check: str) -> None:
    getattr(estimator_checks, check)("CoFTClassifier", coft.CoFTClassifier(CLASSNAMES))


def test_check_estimator_passes() -> None:
    with pytest.warns(UserWarning, match="Can't test estimator"):
        results = check_estimator(coft.CoFTClassifier(CLASSNAMES), on_fail=None)
    assert results and {row["status"] for row in results} <= {"passed", "skipped"}


def test_fit_ignores_y(pictures: list[Image.Image], checkpoints: dict[str, Path]) -> None:
    settings = dict(SHORT)
    estimator = coft.CoFTClassifier(CLASSNAMES, backbone=str(checkpoints["resnet"]), settings=settings)
    with pytest.raises(NotFittedError):
        estimator.predict(pictures)
    assert estimator.fit(pictures) is estimator and settings == SHORT
    wrong = clone(estimator).fit(pictures, y=["nonsense"] * len(pictures))
    assert np.array_equal(wrong.predict_proba(pictures), estimator.predict_proba(pictures))
    assert list(estimator.classes_) == sorted(CLASSNAMES)
    predicted = estimator.predict(np.stack([np.asarray(picture) for picture in pictures]))
    assert set(predicted) <= set(CLASSNAMES) and list(predicted) == list(estimator.labels_["class"])
    assert estimator.score(pictures, predicted) == 1.0


@pytest.fixture(scope="module")
def fitted(pictures: list[Image.Image], checkpoints: dict[str, Path]) -> coft.CoFTClassifier:
    estimator = coft.CoFTClassifier(CLASSNAMES, backbone=str(checkpoints["resnet"]), settings=dict(SHORT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "MIN_SKILL", -1.0)
        return estimator.fit(pictures)


def test_a_prediction_does_not_depend_on_the_other_images(fitted: coft.CoFTClassifier, pictures: list[Any]) -> None:
    """check_methods_subset_invariance, check_methods_sample_order_invariance, check_fit2d_1sample."""
    whole, order = fitted.predict_proba(pictures), [5, 0, 17, 3]
    np.testing.assert_allclose(fitted.predict_proba([pictures[i] for i in order]), whole[order], atol=1e-6)
    np.testing.assert_allclose(
        np.concatenate([fitted.predict_proba([one]) for one in pictures[:3]]), whole[:3], atol=1e-6
    )
    assert fitted.predict_proba(pictures[:0]).shape == (0, 3)


def test_prediction_changes_no_attribute(fitted: coft.CoFTClassifier, pictures: list[Any]) -> None:
    """check_dict_unchanged, check_readonly_memmap_input, check_f_contiguous_array_estimator, check_dont_overwrite_*."""
    before = dict(vars(fitted))
    array = np.stack([np.asarray(picture) for picture in pictures])
    array.setflags(write=False)
    probabilities = fitted.predict_proba(array)
    assert np.array_equal(fitted.predict_proba(np.asfortranarray(array)), probabilities)
    assert vars(fitted).keys() == before.keys() and all(vars(fitted)[name] is before[name] for name in before)
    assert {name for name in vars(fitted) if name.endswith("_")} == {"adapted_", "classes_", "labels_"}


def test_probabilities_are_in_the_order_of_classes_(fitted: coft.CoFTClassifier, pictures: list[Any]) -> None:
    """check_classifiers_train, check_classifiers_classes, check_decision_proba_consistency."""
    probabilities = fitted.predict_proba(pictures)
    assert probabilities.shape == (24, 3) and probabilities.sum(axis=1) == pytest.approx(np.ones(24), abs=1e-5)
    assert list(fitted.classes_[probabilities.argmax(axis=1)]) == list(fitted.predict(pictures))


@pytest.mark.parametrize("settings", [["prec"], "prec", 5, {1: 2}, {"seed": 1}, {"images": "x"}, {"method": "coft"}])
def test_bad_settings_are_refused(settings: Any) -> None:
    with pytest.raises(coft.UserError, match=r"^settings (is|has) "):
        coft.CoFTClassifier(CLASSNAMES, settings=settings).fit([np.zeros((64, 64), np.uint8)] * 2)


def test_probability_scorers_read_the_columns(fitted: coft.CoFTClassifier, pictures: list[Any]) -> None:
    renamed = copy.copy(fitted)  # classes in another order than the alphabet's
    renamed.adapted_ = coft.Adapted(replace(fitted.adapted_.model, classes=("zebra", "cat", "dog")), fitted.labels_)
    renamed.classes_ = np.sort(renamed.adapted_.classes_)
    labels = np.resize(["cat", "dog", "zebra"], len(pictures))
    column_of = {name: column for column, name in enumerate(renamed.adapted_.classes_)}
    probabilities = renamed.adapted_.predict_proba(pictures)
    right = [row[column_of[label]] for row, label in zip(probabilities, labels, strict=True)]
    score = get_scorer("neg_log_loss")(renamed, pictures, labels)
    assert score == pytest.approx(np.log(right).mean(), abs=1e-4)
