"""ZeroshotCLIP, CoOp, UPL and GRIP in Dassl: predictions, checkpoints and data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from clip import clip

from coft.backbones.prompts import template_features
from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from datasets.base import dataset_root, read_split
from tests.coft.toys import assert_same_bits
from tests.trainers.conftest import weights
from tests.trainers.runs import Run


def test_zero_shot_logits_are_those_of_clip(trained: Run) -> None:
    trainer, image = trained("ZeroshotCLIP", "vit"), torch.randn(5, 3, 32, 32)
    tokens = clip.tokenize([f"a photo of a {name}." for name in trainer.classnames])
    with torch.no_grad():
        expected, _ = trainer.clip_model(image, tokens)
    torch.testing.assert_close(trainer.model_inference(image), expected, atol=1e-4, rtol=1e-4)


def test_zero_shot_2_averages_the_features_of_all_templates(trained: Run) -> None:
    single, ensemble = trained("ZeroshotCLIP").method, trained("ZeroshotCLIP2").method
    clip = ensemble.engine.clip
    features = [template_features(clip.clip_model, clip.classnames, t) for t in clip.templates]
    torch.testing.assert_close(single.text, features[0])
    torch.testing.assert_close(ensemble.text, F.normalize(sum(features) / len(features), dim=-1))
    assert len(features) > 1 and not torch.allclose(single.text, ensemble.text, atol=1e-3)


@pytest.mark.parametrize("settings", [
    {"TRAINER__COOP__CSC": True, "TRAINER__COOP__CLASS_TOKEN_POSITION": "middle"},
    {"TRAINER__COOP__CTX_INIT": "a photo of a"},
])  # fmt: skip
def test_variants_of_coop_train_and_load(run: Run, settings: dict[str, Any]) -> None:
    trainer, loaded = run("CoOp", "vit", **settings), run("CoOp", "vit", train=False, out="loaded", **settings)
    assert trainer.prompt_learner is trainer.model is trainer.method.models["prompt_learner"]
    assert not torch.equal(trainer.prompt_learner.ctx, loaded.prompt_learner.ctx)
    loaded.load_model(trainer.output_dir, epoch=2)
    assert_same_bits(weights(trainer), weights(loaded))


def test_a_checkpoint_of_coop_itself_is_loaded(run: Run, tmp_path: Path) -> None:
    """CoOp writes the context in fp16, and the tokens of the class names beside it."""
    folder = tmp_path / "coop" / "prompt_learner"
    folder.mkdir(parents=True)
    ctx = torch.randn(16, 64).half()
    state = {"ctx": ctx, "token_prefix": torch.zeros(3, 1, 64), "token_suffix": torch.zeros(3, 60, 64)}
    torch.save({"state_dict": state, "epoch": 50, "optimizer": {}, "scheduler": {}, "val_result": None},
               folder / "model.pth.tar-50")  # fmt: skip
    for trainer in ("CoOp", "UPL"):
        built = run(
            trainer, "vit", train=False, out=trainer, **({"TRAINER__UPL__ENSEMBLE": 1} if trainer == "UPL" else {})
        )
        before = built.model_inference(torch.ones(1, 3, 32, 32))
        built.load_model(str(tmp_path / "coop"), epoch=50)
        assert torch.equal(built.prompt_learner.ctx, ctx.float())
        assert not torch.equal(built.model_inference(torch.ones(1, 3, 32, 32)), before)


@pytest.mark.parametrize("trainer", ["CoOp", "UPL", "GRIP"])
def test_init_weights_loads_the_context_but_no_labels(run: Run, trained: Run, trainer: str) -> None:
    reference = trained(trainer)
    path = Path(reference.output_dir) / "prompt_learner" / f"model.pth.tar-{reference.max_epoch}"
    loaded = run(trainer, train=False, MODEL__INIT_WEIGHTS=str(path))
    assert torch.equal(reference.prompt_learner.ctx, loaded.prompt_learner.ctx)
    assert not loaded.method.labels  # labels of GRIP's last round may belong to other images


def test_coop_may_choose_the_best_epoch_by_labels(run: Run) -> None:
    built = run("CoOp", TEST__FINAL_MODEL="best_val", TEST__SPLIT="test")
    assert (Path(built.output_dir) / "prompt_learner" / "model-best.pth.tar").is_file()


@DATASET_REGISTRY.register()
class CoOpStyle(DatasetBase):
    """A data set in CoOp's style: no unlabeled part, class names derived from labels."""

    def __init__(self, cfg: Any) -> None:
        train, _, test = read_split(dataset_root(cfg) / "split.json", dataset_root(cfg) / "images")
        super().__init__(train_x=train, test=test)


@DATASET_REGISTRY.register()
class OneClass(DatasetBase):
    """A data set in CoOp's style with the images of one class."""

    def __init__(self, cfg: Any) -> None:
        train, _, test = read_split(dataset_root(cfg) / "split.json", dataset_root(cfg) / "images")
        super().__init__(train_x=[item for item in train if not item.label], test=test[:1])


@DATASET_REGISTRY.register()
class HalfKnown(DatasetBase):
    """A data set in CoOp's style with a test image without a label."""

    def __init__(self, cfg: Any) -> None:
        train, _, test = read_split(dataset_root(cfg) / "split.json", dataset_root(cfg) / "images")
        super().__init__(train_x=train, test=[*test, Datum(impath=test[0].impath, label=-1)])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OneClass", "data set OneClass: a classifier needs at least two class names"),
        ("HalfKnown", "data set HalfKnown: test image .* has no label; leave it out"),
    ],
)
def test_unsuitable_data_sets_are_refused(run: Run, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run("UPL", DATASET__NAME=name)


@pytest.mark.parametrize("trainer", ["UPL", "CoFT"])
def test_label_free_trainers_use_the_training_images_of_data_sets_in_coops_style(
    run: Run, trained: Run, trainer: str
) -> None:
    """The weights are those of a declared data set."""
    assert_same_bits(weights(trained(trainer)), weights(run(trainer, DATASET__NAME="CoOpStyle")))
