"""GRIP: rounds of pseudo-labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.images.views import normalize, plain_view
from coft.method.seeds import select_seeds
from coft.runtime.errors import UserError
from tests.trainers.conftest import assert_same_bits, weights
from trainers.grip import linear_quota


def test_the_number_of_pseudo_labels_grows_to_all_images() -> None:
    assert [linear_quota(i, 10, 1000, 10) for i in range(1, 11)] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert [linear_quota(i, 3, 60, 3) for i in (1, 2, 3)] == [6, 13, 20]
    assert linear_quota(1, 10, 20, 100) == 1


def test_every_round_labels_with_the_prompts_before_and_begins_afresh(run: Callable[..., Any]) -> None:
    built = run("GRIP", "vit", train=False, OPTIM__MAX_EPOCH=2)
    assert built.max_epoch == 6
    view, rounds = plain_view(built.cfg), []
    images = normalize(built.cfg)(torch.stack([view(built.pool.image(rank)) for rank in range(len(built.pool))]))
    begin = built.begin_round

    def watched(number: int) -> None:
        logits = built.model_inference(images)
        contexts = [learner.ctx.clone() for learner in built.learners.values()]
        begin(number)
        expected, _ = select_seeds(logits, linear_quota(number, 3, 60, 3))
        same = built.seeds.ranks.eq(expected.ranks) & built.seeds.labels.eq(expected.labels)
        assert same.float().mean() > 0.9  # sums in another order may swap near ties
        rounds.append((built.epoch, number, len(built.seeds.ranks)))
        for old, learner in zip(contexts, built.learners.values(), strict=True):
            assert not torch.equal(old, learner.ctx)
            assert float(learner.ctx.detach().std()) == pytest.approx(0.02, rel=0.2)
        for optimizer in built._optims.values():
            assert optimizer.phase == number and not optimizer.optimizer.state_dict()["state"]

    built.begin_round = watched
    built.train()
    assert [(epoch, number) for epoch, number, _ in rounds] == [(2, 2), (4, 3)]
    assert all(size <= quota for (_, _, size), quota in zip(rounds, (39, 60), strict=True))
    assert rounds[0][2] < rounds[1][2]


def test_contexts_of_rounds_and_members_differ(run: Callable[..., Any]) -> None:
    built = run("GRIP", train=False)
    starts = [built.first_context(m, *key) for m in (0, 1) for key in ((), ("round", 2), ("round", 3))]
    for i, one in enumerate(starts):
        assert all(not torch.equal(one, other) for other in starts[:i])


def test_batches_follow_the_rounds_pseudo_labels(run: Callable[..., Any]) -> None:
    built = run("GRIP", OPTIM__MAX_EPOCH=2, TRAINER__GRIP__ROUNDS=2)
    known = dict(zip(built.seeds.ranks.tolist(), built.seeds.labels.tolist(), strict=True))
    for batch in built.train_loader_x:
        for part, (_, label) in zip(batch.values(), built.examples(batch).values(), strict=True):
            assert label.tolist() == [known[rank] for rank in part["rank"].tolist()]


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_bits(run: Callable[..., Any], stop_at: int) -> None:
    settings = {"OPTIM__MAX_EPOCH": 2, "TRAINER__GRIP__ROUNDS": 2}
    whole = run("GRIP", out="whole", **settings)
    first = run("GRIP", out="stopped", train=False, **settings)
    original = first.forward_backward

    class Stop(Exception):
        pass

    def stop(batch: Any) -> Any:
        if first.epoch == stop_at:
            raise Stop
        return original(batch)

    first.forward_backward = stop
    with pytest.raises(Stop):
        first.train()
    assert_same_bits(weights(whole), weights(run("GRIP", out="stopped", **settings)))


def test_a_checkpoint_evaluates_and_the_summary_tells_ensemble_and_labels(run: Callable[..., Any]) -> None:
    built = run("GRIP")
    summary = json.loads((Path(built.output_dir) / "summary.json").read_text())
    assert (summary["ensemble"], summary["labels_used"]) == (2, 0)
    again = run("GRIP", train=False, out="again")
    again.load_model(built.output_dir)
    assert again.test() == pytest.approx(built.results["accuracy_test"])


def test_rounds_below_one_are_refused(run: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"TRAINER.GRIP.ROUNDS is 0; expected at least 1"):
        run("GRIP", TRAINER__GRIP__ROUNDS=0)


def test_contexts_can_come_from_a_file(run: Callable[..., Any]) -> None:
    first = run("GRIP", out="first")
    path = Path(first.output_dir) / "prompt_learner" / "model.pth.tar-3"
    second = run("GRIP", train=False, out="second", MODEL__INIT_WEIGHTS=str(path))
    assert torch.equal(first.prompt_learner.ctx, second.prompt_learner.ctx)
