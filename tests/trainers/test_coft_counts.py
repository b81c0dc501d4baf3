"""Numbers that CoFT's keys and a set's size decide together, and keys that no other test of a whole trainer has."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from coft.method.lessons import Targets
from coft.runtime.diagnostics import Diagnostics
from coft.runtime.run_log import PeerLog
from tests.trainers.conftest import weights

PEERS = ("peer_a", "peer_b")


@pytest.mark.parametrize(("seeds", "share", "min_kept", "expected"), [
    (3, 0.5, 4, 1), (5, 0.5, 4, 2), (9, 1.0, 4, 3), (9, 1.0, 2, 2), (16, 2.0, 4, 4), (3, 0.5, 0, 0),
])  # fmt: skip
def test_no_more_than_a_quarter_of_the_seeds_is_kept_in_any_case(
    run: Callable[..., Any], seeds: int, share: float, min_kept: int, expected: int
) -> None:
    keys = {"SEEDS_PER_CLASS": seeds, "SEEDS_SHARE": share, "MIN_KEPT": min_kept, "PHASE1__MIN_AUC": 0.0}
    trainer = run("CoFT", train=False, **{f"TRAINER__COFT__{key}": value for key, value in keys.items()})
    trainer.before_train()
    trainer.epoch = 1
    trainer.before_epoch()
    for name in PEERS:
        told = trainer.targets[name]
        always = told.weight == 1
        for c in range(3):
            of_class = told.labels == c
            assert int((always & of_class).sum()) == min(expected, int(of_class.sum()))


@pytest.mark.parametrize(("batch", "seeds", "min_steps", "split"), [
    (4, 3, 4, True), (4, 3, 4, False), (2, 3, 20, True), (2, 4, 2, False), (100, 5, 0, True),
])  # fmt: skip
def test_an_epoch_passes_over_the_seeds_or_makes_its_part_of_the_least_steps(
    run: Callable[..., Any], batch: int, seeds: int, min_steps: int, split: bool
) -> None:
    keys = {"SEEDS_PER_CLASS": seeds, "PHASE1__MIN_STEPS": min_steps, "SPLIT_SEEDS": split}
    settings = {f"TRAINER__COFT__{key}": value for key, value in keys.items()}
    trainer = run("CoFT", train=False, DATALOADER__TRAIN_X__BATCH_SIZE=batch, **settings)
    trainer.before_train()
    trainer.epoch = 0
    trainer.before_epoch()
    left, passes = 3 * trainer.seeds_per_class * (1 if split else 2), 0  # of three classes, if none is short
    assert left >= max(len(peer.seeds.ranks) for peer in trainer.peers.values())
    while left > 0:
        left, passes = left - batch, passes + 1
    steps = len(trainer.train_loader_x)
    assert steps == trainer.steps_per_epoch(1)
    assert steps >= passes and steps * trainer.own.PHASE1.EPOCHS >= min_steps
    assert steps == passes or (steps - 1) * trainer.own.PHASE1.EPOCHS < min_steps  # and not one more
    left, passes = len(trainer.pool), 0
    while left > 0:
        left, passes = left - batch, passes + 1
    assert trainer.steps_per_epoch(2) == passes


@pytest.mark.parametrize(("queue", "expected"), [(4096, 30), (31, 30), (7, 7)])
def test_the_queue_holds_half_of_the_images_at_most(run: Callable[..., Any], queue: int, expected: int) -> None:
    trainer = run("CoFTPlus", train=False, TRAINER__COFTPLUS__CONTRAST__QUEUE=queue)
    assert len(trainer.pool) == 60
    for peer in trainer.peers.values():
        peer.enter_phase2()
        for rank in range(100):
            peer.queue.push(torch.ones(1, trainer.own.CONTRAST.DIM), torch.tensor([rank]))
        assert len(peer.queue.filled()[0]) == expected


@pytest.mark.parametrize("warm", [True, False])
def test_a_round_goes_on_with_the_modules_of_the_one_before_or_starts_afresh(
    run: Callable[..., Any], warm: bool
) -> None:
    trainer = run("CoFTPlus", train=False, TRAINER__COFTPLUS__WARM_START=warm)
    trainer.before_train()
    trainer.epoch = 0
    trainer.before_epoch()
    for i, batch in enumerate(trainer.train_loader_x):
        trainer.batch_idx = i
        trainer.forward_backward(batch)
    trained = {key: value.clone() for key, value in weights(trainer).items()}
    trainer.epoch = trainer.own.PHASE1.EPOCHS
    trainer.before_epoch()
    now = weights(trainer)
    learned = [key for key in now if "ctx" in key or "encoder" in key]
    assert learned and all(torch.equal(trained[key], now[key]) == warm for key in learned if "ctx" in key)
    assert all(torch.equal(trained[key], now[key]) for key in learned) == warm
    rate = trainer._optims["peer_a"].param_groups[0]["lr"]
    assert rate == trainer.cfg.OPTIM.LR  # the cosine of a round begins at its top, either way


def test_contexts_of_random_tokens_differ_between_the_peers(run: Callable[..., Any]) -> None:
    trainer = run("CoFT", train=False, TRAINER__COFT__N_CTX=16)
    a, b = (trainer.peers[name].prompts for name in PEERS)
    width = trainer.clip_model.token_embedding.embedding_dim
    for prompts in (a, b):
        assert prompts.positive.ctx.shape == (16, width)
        assert float(prompts.positive.ctx.detach().std()) == pytest.approx(0.02, rel=0.15)
        noise = prompts.negative.ctx - prompts.positive.ctx
        assert float(noise.detach().std()) == pytest.approx(0.002, rel=0.15)
    between = (a.positive.ctx - b.positive.ctx).std()
    assert float(between.detach()) == pytest.approx(0.02 * math.sqrt(2), rel=0.15)  # as of independent ones
    trainer.train()
    assert not torch.equal(trainer.peers["peer_a"].prompts.positive.ctx, trainer.peers["peer_b"].prompts.positive.ctx)


def chance(rule: str, odds: list[float], c: int) -> float:
    """p_clean of one label of one image, in Python's floats."""
    if rule == "raw":
        return 1 / (1 + math.exp(-odds[c]))
    if rule == "calibrated":
        return 1 / (1 + math.exp(-odds[c]) * (len(odds) - 1))
    nobody = len(odds) - 1 if rule == "open" else 0
    return math.exp(odds[c]) / (sum(math.exp(d) for d in odds) + nobody)


@pytest.mark.parametrize("key", ["open", "coupled", "calibrated", "probability"])
def test_every_clean_rule_weighs_what_is_taught(run: Callable[..., Any], key: str) -> None:
    named = "FILTER" if key == "probability" else "CLEAN_RULE"
    trainer = run("CoFT", train=False, **{f"TRAINER__COFT__{named}": key, "TRAINER__COFT__MIN_KEPT": 0})
    trainer.before_train()
    trainer.epoch = 2
    trainer.before_epoch()
    views = trainer._classify(None)
    corrected = {n: [x.double() - 0.5 * x.double().softmax(1).mean(0).log() for x in views[n]] for n in PEERS}
    for name, other in (PEERS, PEERS[::-1]):
        logits, odds = corrected[other]
        labels = (logits + odds).argmax(dim=1).tolist()
        told = trainer.peers[name].lesson
        assert told.labels.tolist() == labels
        for i, c in enumerate(labels):
            said = [corrected[p][0 if key == "probability" else 1][i].tolist() for p in PEERS]
            rule = "coupled" if key == "probability" else key  # a softmax, of l+ or of d
            assert float(told.weight[i]) == pytest.approx(min(chance(rule, x, c) for x in said), abs=1e-5)


@pytest.mark.parametrize(("differing", "warned"), [(0, 1), (1, 1), (2, 0), (50, 0)])
def test_peers_that_say_the_same_are_worth_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, differing: int, warned: int
) -> None:
    shown = PeerLog(SimpleNamespace(OUTPUT_DIR=str(tmp_path), RESUME=""), 0, 0.0)
    first = torch.zeros(100, dtype=torch.long)
    second = (torch.arange(100) < differing).long()
    none = torch.zeros(1, dtype=torch.long)
    targets = {name: Targets(none, none, torch.ones(1), none, torch.zeros(2), 0.5) for name in PEERS}
    told = Diagnostics(torch.full((100,), -1))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            numbers = shown.seeds(targets, [first, second], told, 100)
    assert numbers["disagreement"] == pytest.approx(differing / 100)
    assert caplog.text.count("The peers disagree on") == warned
