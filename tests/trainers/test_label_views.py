"""Pseudo-labels are made of the mean over several views of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.images.unlabeled import plain_batches
from coft.method.labelling import answers_of, classify_pool, image_features, pool_features, zero_shot_logits
from coft.method.seeds import correct_prior_, select_seeds
from coft.runtime.errors import UserError

KEY = (1, "labels", 7)


def views_of(trainer: Any, key: tuple[int | str, ...] = KEY) -> Tensor:
    """All images in three views, the test's first. Shape (N, 3, 3, size, size)."""
    return torch.cat([b["all"]["view"] for b in plain_batches(trainer.pool, trainer.cfg, None, 3, key)])


@pytest.mark.parametrize("backbone", ["resnet", "vit"])
@torch.no_grad()
def test_answers_are_means_over_the_views(run: Callable[..., Any], backbone: str) -> None:
    trainer = run("CoFT", backbone, train=False, DATALOADER__TEST__BATCH_SIZE=7)
    peers = {name: peer.teacher().eval() for name, peer in trainer.peers.items()}
    found = classify_pool(peers, trainer.pool, trainer.cfg, trainer.device, views=3, key=KEY)
    features = pool_features(
        peers,
        trainer.pool,
        trainer.cfg,
        trainer.device,
        dict.fromkeys(peers, torch.arange(len(trainer.pool))),
        None,
        3,
        KEY,
    )
    for name, peer in peers.items():
        for i, image in enumerate(views_of(trainer)):
            each = [peer(view[None]) for view in image]
            for part, got in enumerate(found[name]):
                torch.testing.assert_close(got[i], sum(answer[part][0] for answer in each) / 3, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(features[name][i], sum(peer.features(view[None])[0] for view in image) / 3)


@torch.no_grad()
def test_one_view_is_the_test_s(run: Callable[..., Any]) -> None:
    trainer = run("CoFT", train=False)
    peers = {name: peer.teacher().eval() for name, peer in trainer.peers.items()}
    images = torch.cat([b["all"]["view"] for b in plain_batches(trainer.pool, trainer.cfg)])
    found = classify_pool(peers, trainer.pool, trainer.cfg, trainer.device)
    for name, answers in answers_of(peers, images).items():
        for got, wanted in zip(found[name], answers, strict=True):
            torch.testing.assert_close(got, wanted)


@torch.no_grad()
def test_zero_shot_logits_are_means_over_the_views(run: Callable[..., Any]) -> None:
    trainer = run("CoFT", train=False)
    clip_model, text = trainer.clip_model, trainer.text_features()
    args = (trainer.pool, trainer.cfg, trainer.device)
    scale = clip_model.logit_scale.exp()
    single = image_features(clip_model, *args)
    for _ in range(2):  # the second time from the disk
        found = zero_shot_logits(clip_model, text, *args, 3, KEY)
        for image, got in zip(views_of(trainer), found, strict=True):
            each = [
                scale * F.normalize(clip_model.encode_image(view[None]).float(), dim=-1)[0] @ text.t() for view in image
            ]
            torch.testing.assert_close(got, sum(each) / 3, atol=1e-4, rtol=1e-4)
    assert torch.equal(image_features(clip_model, *args), single)
    torch.testing.assert_close(single.norm(dim=1), torch.ones(len(single)))


@torch.no_grad()
def test_each_seed_has_first_labels_of_views_of_its_own(run: Callable[..., Any]) -> None:
    logits = {}
    for seed in (1, 2):
        trainer = run("CoFT", train=False, out=f"seed{seed}", SEED=seed, TRAINER__COFT__LABEL_VIEWS=3)
        trainer.before_train()
        text, scale = trainer.text_features(), trainer.clip_model.logit_scale.exp()
        features = [
            F.normalize(trainer.clip_model.encode_image(image).float(), dim=-1).mean(dim=0)
            for image in views_of(trainer, (seed, "labels", 0))
        ]
        logits[seed] = correct_prior_(scale * torch.stack(features) @ text.t(), trainer.own.PRIOR_TAU)
        chosen, _ = select_seeds(logits[seed], 2 * trainer.seeds_per_class)
        found = torch.cat([peer.seeds.ranks for peer in trainer.peers.values()])
        assert sorted(found.tolist()) == sorted(chosen.ranks.tolist())
    assert not torch.allclose(logits[1], logits[2], atol=1e-3)


@pytest.mark.parametrize("trainer", ["CoFT", "CoFTPlus"])
def test_views_are_asked_for_where_labels_are_made(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, trainer: str
) -> None:
    asked: list[tuple[int, Any]] = []

    def counting(pool: Any, cfg: Any, ranks: Any = None, views: int = 1, key: Any = ()) -> Any:
        asked.append((views, tuple(key)))
        return plain_batches(pool, cfg, ranks, views, key)

    monkeypatch.setattr("coft.method.labelling.plain_batches", counting)
    section = trainer.upper()
    run(trainer, out="one", **{f"TRAINER__{section}__LABEL_VIEWS": 1})
    assert {views for views, _ in asked} == {1}
    asked.clear()
    built = run(trainer, out="two", **{f"TRAINER__{section}__LABEL_VIEWS": 2})
    keys = [key for views, key in asked if views == 2]
    first, last, every = built.phase1_epochs, built.max_epoch, built.own.PHASE2.REFRESH
    assert {key[2] for key in keys if key[2] >= first} == set(range(first, last, every))
    assert {key[:2] for key in keys} == {(1, "labels")} and (1, "labels", 0) in keys
    assert any(views == 1 for views, _ in asked)  # the other peer's word on seeds


def test_no_view_is_a_mistake(run: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"LABEL_VIEWS is 0"):
        run("CoFT", train=False, TRAINER__COFT__LABEL_VIEWS=0)
