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
from coft.method.pseudo_labels import select_seeds
from coft.rivals.grip import linear_quota
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from datasets.base import dataset_root, read_split
from tests.trainers.conftest import assert_same_bits, saved_weights, weights

Run = Callable[..., Any]


def test_zero_shot_equals_clips_own(trained: Run) -> None:
    trainer, image = trained("ZeroshotCLIP", "vit"), torch.randn(5, 3, 32, 32)
    tokens = clip.tokenize([f"a photo of a {name}." for name in trainer.classnames])
    with torch.no_grad():
        expected, _ = trainer.clip_model(image, tokens)
    torch.testing.assert_close(trainer.model_inference(image), expected, atol=1e-4, rtol=1e-4)


def test_zero_shot_2_averages_templates(trained: Run) -> None:
    one, all_of_them = trained("ZeroshotCLIP").method, trained("ZeroshotCLIP2").method
    templates = trained("ZeroshotCLIP2").templates
    features = [template_features(one.clip_model, trained("ZeroshotCLIP").classnames, t) for t in templates]
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


def test_coops_gradient_equals_the_plain_way(run: Run) -> None:
    trainer = run("CoOp", "vit", train=False, TRAINER__COOP__N_CTX=4)
    image, label = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    method, model, learner = trainer.method, trainer.clip_model, trainer.prompt_learner
    logits = method.scale * method.image_features(image) @ method.text("prompt_learner").t()
    F.cross_entropy(logits, label).backward()
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
def test_contexts_can_come_from_a_file(run: Run, trained: Run, trainer: str) -> None:
    first = trained(trainer)
    path = Path(first.output_dir) / "prompt_learner" / f"model.pth.tar-{first.max_epoch}"
    second = run(trainer, train=False, MODEL__INIT_WEIGHTS=str(path))
    assert torch.equal(first.prompt_learner.ctx, second.prompt_learner.ctx)


def test_the_best_epoch_may_be_chosen_by_labels_where_labels_are_read(run: Run) -> None:
    built = run("CoOp", TEST__FINAL_MODEL="best_val", TEST__SPLIT="test")
    assert (Path(built.output_dir) / "prompt_learner" / "model-best.pth.tar").is_file()


def test_upl_learns_from_the_surest_images_of_each_class(run: Run) -> None:
    trainer = run("UPL", "vit", train=False)
    text = trainer.clip_model.encode_text(clip.tokenize([f"a photo of a {n}." for n in trainer.classnames]))
    images = torch.cat(list(trainer.images.plain()))
    with torch.no_grad():
        logits = F.normalize(trainer.clip_model.encode_image(images), dim=-1) @ F.normalize(text, dim=-1).t()
    expected, found = select_seeds(trainer.clip_model.logit_scale.exp() * logits, 3), trainer.method.labels
    assert torch.equal(found.index, expected.index) and torch.equal(found.label, expected.label)
    trainer.epoch = 0
    trainer.before_epoch()
    for name in ("upl", "upl_2"):
        seen = torch.cat([batch[name]["index"] for batch in trainer.train_loader_x])
        assert set(seen.tolist()) == set(expected.index.tolist())


@pytest.mark.parametrize("trainer", ["UPL", "GRIP"])
def test_members_learn_from_weak_views_and_batches_of_their_own(run: Run, trainer: str) -> None:
    built = run(trainer, train=False)
    built.epoch = 0
    built.before_epoch()
    ours, method = list(built.train_loader_x), built.method
    index = dict.fromkeys(("upl", "upl_2"), method.labels.index)
    wanted = built.images.batches("weak", index, len(ours), built.cfg.SEED, trainer.upper(), 0)
    assert all(torch.equal(a[name]["view"], b[name]["view"]) for a, b in zip(ours, wanted, strict=True) for name in a)
    first, second = method.examples(ours[0]).values()
    assert not torch.equal(first[1], second[1]) and not torch.equal(first[0], second[0])
    known = dict(zip(method.labels.index.tolist(), method.labels.label.tolist(), strict=True))
    for part, (_, label) in zip(ours[0].values(), (first, second), strict=True):
        assert label.tolist() == [known[i] for i in part["index"].tolist()]


def test_the_first_of_an_ensemble_is_the_one_that_trains_alone(run: Run, trained: Run) -> None:
    alone, two = weights(run("UPL", TRAINER__UPL__ENSEMBLE=1)), weights(trained("UPL"))
    assert list(two) == ["prompt_learner.ctx", "prompt_learner_2.ctx"]
    assert_same_bits(alone, {"prompt_learner.ctx": two["prompt_learner.ctx"]})
    assert not torch.equal(two["prompt_learner.ctx"], two["prompt_learner_2.ctx"])


def test_an_ensemble_averages_probabilities_and_one_prompt_predicts_its_logits(run: Run, trained: Run) -> None:
    image, method = torch.randn(4, 3, 32, 32), trained("UPL").method
    with torch.no_grad():
        each = [
            (method.scale * method.image_features(image) @ method.text(n).t()).softmax(dim=1) for n in method.learners
        ]
        torch.testing.assert_close(method.predict(image).exp(), sum(each) / 2)
        one = run("UPL", train=False, TRAINER__UPL__ENSEMBLE=1).method
        logits = one.scale * one.image_features(image) @ one.text("prompt_learner").t()
        torch.testing.assert_close(one.predict(image), logits)


def test_grip_s_pseudo_labels_grow_to_all_images() -> None:
    assert [linear_quota(i, 10, 1000, 10) for i in range(1, 11)] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert [linear_quota(i, 3, 60, 3) for i in (1, 2, 3)] == [6, 13, 20]
    assert linear_quota(1, 10, 20, 100) == 1


def test_every_round_of_grip_labels_with_the_prompts_before_and_begins_afresh(run: Run) -> None:
    built = run("GRIP", "vit", train=False, OPTIM__MAX_EPOCH=2)
    assert built.max_epoch == 6
    method, sizes = built.method, []
    images, begin = torch.cat(list(built.images.plain())), method.begin_round

    def watched(number: int) -> None:
        logits = method.predict(images)
        before = [learner.ctx.clone() for learner in method.learners.values()]
        begin(number)
        expected = select_seeds(logits, linear_quota(number, 3, 60, 3))
        same = method.labels.index.eq(expected.index) & method.labels.label.eq(expected.label)
        assert same.float().mean() > 0.9  # sums in another order may swap near ties
        sizes.append((built.epoch, number, len(expected.index)))
        for old, learner in zip(before, method.learners.values(), strict=True):
            assert not torch.equal(old, learner.ctx)
            assert float(learner.ctx.detach().std()) == pytest.approx(0.02, rel=0.2)
        for optimizer in method.optimizers.values():
            assert optimizer.phase == number and not optimizer.optimizer.state_dict()["state"]

    method.begin_round = watched
    built.train()
    assert [(epoch, number) for epoch, number, _ in sizes] == [(2, 2), (4, 3)]
    assert sizes[0][2] <= 39 and sizes[0][2] < sizes[1][2] <= 60
    starts = [method.first_context(m, *key) for m in (0, 1) for key in ((), ("round", 2), ("round", 3))]
    for i, one in enumerate(starts):
        assert all(not torch.equal(one, other) for other in starts[:i])


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


def test_saved_contexts_are_those_of_the_run(trained: Run) -> None:
    built = trained("CoOp")
    assert_same_bits(
        saved_weights(Path(built.output_dir), "prompt_learner", 2), dict(built.prompt_learner.state_dict())
    )
