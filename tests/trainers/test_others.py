"""ZeroshotCLIP, CoOp and UPL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from clip import clip

from coft.backbones.prompts import template_features
from coft.method.seeds import select_seeds
from coft.runtime.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from datasets.base import dataset_root, read_split
from tests.trainers.conftest import assert_same_bits, weights


def test_zero_shot_equals_clips_own(run: Callable[..., Any]) -> None:
    trainer = run("ZeroshotCLIP", "vit")
    image = torch.randn(5, 3, 32, 32)
    tokens = clip.tokenize([f"a photo of a {name}." for name in trainer.classnames])
    with torch.no_grad():
        expected, _ = trainer.clip_model(image, tokens)
    torch.testing.assert_close(trainer.model_inference(image), expected, atol=1e-4, rtol=1e-4)
    assert json.loads((Path(trainer.output_dir) / "summary.json").read_text())["results"]["accuracy_test"] >= 0


def test_zero_shot_2_averages_templates(run: Callable[..., Any]) -> None:

    one, all_of_them = run("ZeroshotCLIP", train=False), run("ZeroshotCLIP2", train=False, out="all")
    features = [template_features(one.clip_model, one.classnames, template) for template in one.templates]
    torch.testing.assert_close(one.text_features, features[0])
    torch.testing.assert_close(all_of_them.text_features, F.normalize(sum(features) / len(features), dim=-1))
    assert len(features) > 1 and not torch.allclose(one.text_features, all_of_them.text_features, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"TRAINER__COOP__CSC": True, "TRAINER__COOP__CLASS_TOKEN_POSITION": "middle"},
        {"TRAINER__COOP__CTX_INIT": "a photo of a"},
    ],
)
def test_coop_trains_saves_and_loads(run: Callable[..., Any], settings: dict[str, Any]) -> None:
    trainer = run("CoOp", "vit", **settings)
    first = run("CoOp", "vit", train=False, out="fresh", **settings)
    assert not torch.equal(weights(trainer)["prompt_learner.ctx"], weights(first)["prompt_learner.ctx"])
    first.load_model(trainer.output_dir, epoch=2)
    assert_same_bits(weights(trainer), weights(first))
    assert first.test() == pytest.approx(trainer.results["accuracy_test"])


def test_coops_gradient_equals_the_plain_way(run: Callable[..., Any]) -> None:
    trainer = run("CoOp", "vit", train=False, TRAINER__COOP__N_CTX=4)
    image, label = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    F.cross_entropy(trainer.logits(image), label).backward()
    model, learner = trainer.clip_model, trainer.prompt_learner
    ctx = learner.ctx.detach().clone().requires_grad_(True)
    tokens = clip.tokenize([f"X X X X {name}." for name in trainer.classnames])
    embedded = model.token_embedding(tokens)
    prompts = torch.cat([embedded[:, :1], ctx.expand(3, -1, -1), embedded[:, 5:]], dim=1)
    x = model.transformer((prompts + model.positional_embedding).permute(1, 0, 2)).permute(1, 0, 2)
    text = model.ln_final(x)[torch.arange(3), tokens.argmax(-1)] @ model.text_projection
    f = model.encode_image(image)
    logits = model.logit_scale.exp() * (f / f.norm(dim=-1, keepdim=True)) @ (text / text.norm(dim=-1, keepdim=True)).t()
    F.cross_entropy(logits, label).backward()
    torch.testing.assert_close(learner.ctx.grad, ctx.grad, atol=1e-4, rtol=1e-3)


def test_a_checkpoint_in_coops_form_evaluates(run: Callable[..., Any], tmp_path: Path) -> None:
    """The file that CoOp writes: a context in fp16, and the tokens of the class names beside it."""
    folder = tmp_path / "coop" / "prompt_learner"
    folder.mkdir(parents=True)
    ctx = torch.randn(16, 64).half()
    state = {"ctx": ctx, "token_prefix": torch.zeros(3, 1, 64), "token_suffix": torch.zeros(3, 60, 64)}
    torch.save({"state_dict": state, "epoch": 50, "optimizer": {}, "scheduler": {}, "val_result": None},
               folder / "model.pth.tar-50")  # fmt: skip
    trainer = run("CoOp", "vit", train=False)
    trainer.load_model(str(tmp_path / "coop"), epoch=50)
    assert torch.equal(trainer.prompt_learner.ctx, ctx.float())


def test_a_checkpoint_that_does_not_fit_is_named(run: Callable[..., Any]) -> None:
    folder = run("CoOp").output_dir
    other = run("CoOp", train=False, out="other", TRAINER__COOP__N_CTX=4)
    with pytest.raises(UserError, match=r"checkpoint in .* does not fit backbone .* and trainer CoOp"):
        other.load_model(folder)
    with pytest.raises(UserError, match=r"--model-dir .*nowhere"):
        other.load_model("nowhere", epoch=3)


def test_upl_is_trained_on_the_surest_images_of_each_class(run: Callable[..., Any]) -> None:
    trainer = run("UPL", "vit", train=False)
    text = trainer.clip_model.encode_text(clip.tokenize([f"a photo of a {n}." for n in trainer.classnames]))
    from coft.images.views import normalize, plain_view

    view = plain_view(trainer.cfg)
    images = normalize(trainer.cfg)(torch.stack([view(trainer.pool.image(r)) for r in range(len(trainer.pool))]))
    with torch.no_grad():
        logits = F.normalize(trainer.clip_model.encode_image(images), dim=-1) @ F.normalize(text, dim=-1).t()
    expected, _ = select_seeds(trainer.clip_model.logit_scale.exp() * logits, 3)
    assert torch.equal(trainer.seeds.ranks, expected.ranks) and torch.equal(trainer.seeds.labels, expected.labels)
    trainer.epoch = 0
    trainer.before_epoch()
    seen = torch.cat([batch["upl"]["rank"] for batch in trainer.train_loader_x])
    assert set(seen.tolist()) == set(expected.ranks.tolist())


@pytest.mark.parametrize("trainer", ["UPL", "CoOp"])
def test_a_stopped_run_goes_on_to_the_same_bits(run: Callable[..., Any], trainer: str) -> None:
    whole = run(trainer, out="whole", OPTIM__MAX_EPOCH=3)
    first = run(trainer, out="stopped", train=False, OPTIM__MAX_EPOCH=3)
    original = first.forward_backward

    class Stop(Exception):
        pass

    def stop(batch: Any) -> Any:
        if first.epoch == 2:
            raise Stop
        return original(batch)

    first.forward_backward = stop
    with pytest.raises(Stop):
        first.train()
    assert_same_bits(weights(whole), weights(run(trainer, out="stopped", OPTIM__MAX_EPOCH=3)))


@DATASET_REGISTRY.register()
class CoOpStyle(DatasetBase):
    """A data set as CoOp's: no unlabeled part, class names derived from labels."""

    def __init__(self, cfg: Any) -> None:
        train, _, test = read_split(dataset_root(cfg) / "split.json", dataset_root(cfg) / "images")
        super().__init__(train_x=train, test=test)


@pytest.mark.parametrize("trainer", ["UPL", "CoFT"])
def test_data_sets_in_coops_style_serve_label_free_trainers(run: Callable[..., Any], trainer: str) -> None:
    """Their training images are the unlabeled ones, and the result is that of a declared data set."""
    ours = run(trainer, out="ours")
    theirs = run(trainer, out="theirs", DATASET__NAME="CoOpStyle")
    assert_same_bits(weights(ours), weights(theirs))
