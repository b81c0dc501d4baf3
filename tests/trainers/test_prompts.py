"""ZeroshotCLIP, CoOp, UPL and GRIP: what Dassl hands them and what becomes of their checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from clip import clip

from coft.backbones.prompts import template_features
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from datasets.base import dataset_root, read_split
from tests.coft.toys import assert_same_bits
from tests.trainers.conftest import weights

Run = Callable[..., Any]


def test_zero_shot_equals_clips_own(trained: Run) -> None:
    trainer, image = trained("ZeroshotCLIP", "vit"), torch.randn(5, 3, 32, 32)
    tokens = clip.tokenize([f"a photo of a {name}." for name in trainer.classnames])
    with torch.no_grad():
        expected, _ = trainer.clip_model(image, tokens)
    torch.testing.assert_close(trainer.model_inference(image), expected, atol=1e-4, rtol=1e-4)


def test_zero_shot_2_averages_templates(trained: Run) -> None:
    one, all_of_them = trained("ZeroshotCLIP").method, trained("ZeroshotCLIP2").method
    clip = all_of_them.engine.clip
    features = [template_features(clip.clip_model, clip.classnames, t) for t in clip.templates]
    torch.testing.assert_close(one.text, features[0])
    torch.testing.assert_close(all_of_them.text, F.normalize(sum(features) / len(features), dim=-1))
    assert len(features) > 1 and not torch.allclose(one.text, all_of_them.text, atol=1e-3)


@pytest.mark.parametrize("settings", [
    {"TRAINER__COOP__CSC": True, "TRAINER__COOP__CLASS_TOKEN_POSITION": "middle"},
    {"TRAINER__COOP__CTX_INIT": "a photo of a"},
])  # fmt: skip
def test_coop_of_every_kind_trains_saves_and_loads(run: Run, settings: dict[str, Any]) -> None:
    trainer, first = run("CoOp", "vit", **settings), run("CoOp", "vit", train=False, out="fresh", **settings)
    assert trainer.prompt_learner is trainer.model is trainer.method.models["prompt_learner"]
    assert not torch.equal(trainer.prompt_learner.ctx, first.prompt_learner.ctx)
    first.load_model(trainer.output_dir, epoch=2)
    assert_same_bits(weights(trainer), weights(first))


def test_a_checkpoint_in_coops_form_evaluates(run: Run, tmp_path: Path) -> None:
    """The file that CoOp writes: a context in fp16, and the tokens of the class names beside it."""
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
def test_contexts_can_come_from_a_file_and_nothing_else_does(run: Run, trained: Run, trainer: str) -> None:
    first = trained(trainer)
    path = Path(first.output_dir) / "prompt_learner" / f"model.pth.tar-{first.max_epoch}"
    second = run(trainer, train=False, MODEL__INIT_WEIGHTS=str(path))
    assert torch.equal(first.prompt_learner.ctx, second.prompt_learner.ctx)
    assert not second.method.labels  # those of GRIP's last round may be of other images


def test_the_best_epoch_may_be_chosen_by_labels_where_labels_are_read(run: Run) -> None:
    built = run("CoOp", TEST__FINAL_MODEL="best_val", TEST__SPLIT="test")
    assert (Path(built.output_dir) / "prompt_learner" / "model-best.pth.tar").is_file()


@DATASET_REGISTRY.register()
class CoOpStyle(DatasetBase):
    """A data set as CoOp's: no unlabeled part, class names derived from labels."""

    def __init__(self, cfg: Any) -> None:
        train, _, test = read_split(dataset_root(cfg) / "split.json", dataset_root(cfg) / "images")
        super().__init__(train_x=train, test=test)


@pytest.mark.parametrize("trainer", ["UPL", "CoFT"])
def test_data_sets_in_coops_style_serve_label_free_trainers(run: Run, trained: Run, trainer: str) -> None:
    """Their training images are the unlabeled ones, and the result is that of a declared data set."""
    assert_same_bits(weights(trained(trainer)), weights(run(trainer, DATASET__NAME="CoOpStyle")))
