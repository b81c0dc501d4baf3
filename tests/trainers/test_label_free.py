"""Label-free is an invariant: what the unlabeled images' labels, order and names are changes no bit of any weight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.core.errors import UserError
from coft.method import negative_prompt
from tests.coft.toys import assert_same_bits
from tests.conftest import Shapes
from tests.trainers.changed_sets import CHANGES, changed, permute_labels
from tests.trainers.conftest import LABEL_FREE, SHORT, weights


@pytest.fixture(scope="session")
def others(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The data set with each change."""
    folder = tmp_path_factory.mktemp("changed")
    return {name: changed(shapes, folder / name, *parts) for name, parts in CHANGES.items()}


@pytest.fixture
def assert_label_free(run: Callable[..., Any], others: dict[str, Path]) -> Callable[..., None]:
    """Compare weights with those of runs on changed data sets: the first of them, or all."""

    def check(
        reference: dict[str, torch.Tensor], trainer: str, backbone: str = "resnet", changes: int = 1, **settings: Any
    ) -> None:
        for name, root in list(others.items())[:changes]:
            assert_same_bits(reference, weights(run(trainer, backbone, root=root, out=name, **settings)))

    return check


def test_trainers_that_call_themselves_label_free() -> None:
    prompts, encoders = {"UPL", "GRIP", "CPL"}, {"SelfTraining", "MUST", "DPA", "LaFTer", "DeFT", "CoFT", "CoFTPlus"}
    assert set(LABEL_FREE) == prompts | encoders | {"NormAdaptation", "TrainingFree"} <= SHORT.keys()


@pytest.mark.parametrize("trainer", LABEL_FREE)
def test_labels_order_and_names_change_no_bit(
    trained: Callable[..., Any], assert_label_free: Callable[..., None], trainer: str
) -> None:
    backbone = "vit" if trainer in ("CoFTPlus", "LaFTer", "UPL") else "resnet"
    assert_label_free(weights(trained(trainer, backbone)), trainer, backbone, changes=len(CHANGES))


@pytest.mark.parametrize(
    ("trainer", "settings"),
    [
        ("CoFT", {"TRAINER__COFT__PREC": "bf16"}),
        ("CoFTPlus", {"TRAINER__COFTPLUS__DESCRIPTIONS__FROM": "here"}),
        ("UPL", {"DATASET__DESCRIPTIONS": "here"}),
    ],
)
def test_nor_in_lower_precision_or_where_classes_are_described(
    run: Callable[..., Any],
    trained: Callable[..., Any],
    assert_label_free: Callable[..., None],
    described: Path,
    trainer: str,
    settings: dict[str, Any],
) -> None:
    plain = weights(trained(trainer))
    settings = {key: str(described) if value == "here" else value for key, value in settings.items()}
    reference = weights(run(trainer, out="reference", **settings))
    assert any(not torch.equal(reference[key], plain[key]) for key in reference)  # the setting does something
    assert_label_free(reference, trainer, **settings)


def test_nor_where_negative_vectors_are_fitted_to_images_that_are_drawn(
    run: Callable[..., Any], assert_label_free: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negative_prompt, "FIT_BATCH", 4)
    monkeypatch.setattr(negative_prompt, "FIT_IMAGES", 8)
    few = {"DATASET__NUM_UNLABELED": 30}
    assert_label_free(weights(run("CoFT", out="reference", **few)), "CoFT", **few)


@pytest.mark.parametrize("trainer", ["CoOp", "Supervised"])
def test_a_trainer_that_uses_labels_says_so_where_there_are_none(
    configure: Callable[..., Any], others: dict[str, Path], trainer: str
) -> None:
    from dassl.engine import build_trainer

    with pytest.raises(UserError, match=f"{trainer} learns from labels, and image .* has none"):
        build_trainer(configure(trainer, root=others["labels blanked"]))


@pytest.mark.parametrize("trainer", ["CoOp", "Supervised"])
def test_labels_do_change_a_trainer_that_uses_them(
    run: Callable[..., Any], trained: Callable[..., Any], shapes: Path, tmp_path: Path, trainer: str
) -> None:
    reference = weights(trained(trainer))
    root = changed(shapes, tmp_path / "permuted", permute_labels)
    permuted = weights(run(trainer, root=root, out="out"))
    assert any(not torch.equal(reference[key], permuted[key]) for key in reference)


def test_images_that_were_chosen_by_labels_are_refused(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shapes, "train_u", property(lambda self: None))  # as data sets in CoOp's style are
    assert len(run("UPL", train=False).images) == 36
    with pytest.raises(UserError, match=r"DATASET\.NUM_SHOTS 4 leaves Shapes .* UPL reads no label"):
        run("UPL", train=False, out="few", DATASET__NUM_SHOTS=4)
    monkeypatch.undo()
    assert len(run("UPL", train=False, out="all", DATASET__NUM_SHOTS=4).images) == 36


def test_classes_left_out_by_labels_are_told(run: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    run("UPL", train=False, DATASET__SUBSAMPLE_CLASSES="base")
    assert "DATASET.SUBSAMPLE_CLASSES base leaves out images of other classes, by their labels" in caplog.text


@pytest.mark.parametrize("trainer", LABEL_FREE)
def test_no_epoch_is_chosen_by_labels(run: Callable[..., Any], trainer: str) -> None:
    with pytest.raises(UserError, match=r"TEST\.FINAL_MODEL is 'best_val', which chooses an epoch by labels"):
        run(trainer, TEST__FINAL_MODEL="best_val")
