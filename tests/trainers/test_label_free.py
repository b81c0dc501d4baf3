"""Labels, order and file names of the unlabeled images change no bit of any trained weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from coft.core.errors import UserError
from coft.method import negative_prompt
from tests.coft.toys import assert_same_bits
from tests.conftest import Shapes
from tests.trainers.changed_sets import CHANGES, change_data_set, permute_labels
from tests.trainers.conftest import LABEL_FREE, SHORT, weights
from tests.trainers.runs import Run


@pytest.fixture(scope="session")
def changed_roots(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A copy of the data set for each change."""
    folder = tmp_path_factory.mktemp("changed")
    return {name: change_data_set(shapes, folder / name, *changes) for name, changes in CHANGES.items()}


@pytest.fixture
def assert_label_free(run: Run, changed_roots: dict[str, Path]) -> Run:
    """Compare weights with those of runs on the first `changes` of the changed data sets."""

    def check(
        reference: dict[str, torch.Tensor], trainer: str, backbone: str = "resnet", changes: int = 1, **settings: Any
    ) -> None:
        for name, root in list(changed_roots.items())[:changes]:
            assert_same_bits(reference, weights(run(trainer, backbone, root=root, out=name, **settings)))

    return check


def test_the_list_of_label_free_trainers() -> None:
    prompts, encoders = {"UPL", "GRIP", "CPL"}, {"SelfTraining", "MUST", "DPA", "LaFTer", "DeFT", "CoFT", "CoFTPlus"}
    assert prompts | encoders | {"TrainingFree"} <= set(LABEL_FREE) <= SHORT.keys()


@pytest.mark.parametrize("trainer", LABEL_FREE)
def test_weights_do_not_depend_on_labels_order_or_names(trained: Run, assert_label_free: Run, trainer: str) -> None:
    backbone = "vit" if trainer in ("CoFTPlus", "LaFTer", "UPL") else "resnet"
    assert_label_free(weights(trained(trainer, backbone)), trainer, backbone, changes=len(CHANGES))


@pytest.mark.parametrize(
    ("trainer", "settings"),
    [
        ("CoFT", {"TRAINER__COFT__PREC": "bf16"}),
        ("CoFTPlus", {"TRAINER__COFTPLUS__DESCRIPTIONS__FROM": "file"}),
        ("UPL", {"DATASET__DESCRIPTIONS": "file"}),
    ],
)
def test_nor_in_bf16_or_with_descriptions(
    run: Run, trained: Run, assert_label_free: Run, described: Path, trainer: str, settings: dict[str, Any]
) -> None:
    plain = weights(trained(trainer))
    settings = {key: str(described) if value == "file" else value for key, value in settings.items()}
    reference = weights(run(trainer, out="reference", **settings))
    assert any(not torch.equal(reference[key], plain[key]) for key in reference)  # the setting does something
    assert_label_free(reference, trainer, **settings)


def test_nor_where_negative_vectors_are_fitted_to_a_sample(
    run: Run, assert_label_free: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negative_prompt, "FIT_BATCH", 4)
    monkeypatch.setattr(negative_prompt, "FIT_IMAGES", 8)
    settings = {"DATASET__NUM_UNLABELED": 30}
    assert_label_free(weights(run("CoFT", out="reference", **settings)), "CoFT", **settings)


@pytest.mark.parametrize("trainer", ["CoOp", "Supervised"])
def test_trainers_that_learn_from_labels_refuse_images_without(
    configure: Run, changed_roots: dict[str, Path], trainer: str
) -> None:
    from dassl.engine import build_trainer

    with pytest.raises(UserError, match=f"{trainer} learns from labels, and image .* has none"):
        build_trainer(configure(trainer, root=changed_roots["labels blanked"]))


@pytest.mark.parametrize("trainer", ["CoOp", "Supervised"])
def test_labels_change_the_weights_of_trainers_that_learn_from_them(
    run: Run, trained: Run, shapes: Path, tmp_path: Path, trainer: str
) -> None:
    reference = weights(trained(trainer))
    root = change_data_set(shapes, tmp_path / "permuted", permute_labels)
    permuted = weights(run(trainer, root=root, out="out"))
    assert any(not torch.equal(reference[key], permuted[key]) for key in reference)


def test_unlabeled_images_that_were_chosen_by_labels_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shapes, "train_u", property(lambda self: None))  # as in CoOp's data sets
    assert len(run("UPL", train=False).images) == 36
    with pytest.raises(UserError, match=r"DATASET\.NUM_SHOTS 4 leaves Shapes .* UPL reads no label"):
        run("UPL", train=False, out="few", DATASET__NUM_SHOTS=4)
    monkeypatch.undo()
    assert len(run("UPL", train=False, out="all", DATASET__NUM_SHOTS=4).images) == 36


def test_classes_left_out_by_labels_are_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run("UPL", train=False, DATASET__SUBSAMPLE_CLASSES="base")
    assert "DATASET.SUBSAMPLE_CLASSES base leaves out images of other classes, by their labels" in caplog.text


@pytest.mark.parametrize("trainer", LABEL_FREE)
def test_no_epoch_is_chosen_by_labels(run: Run, trainer: str) -> None:
    with pytest.raises(UserError, match=r"TEST\.FINAL_MODEL is 'best_val', which chooses an epoch by labels"):
        run(trainer, TEST__FINAL_MODEL="best_val")
