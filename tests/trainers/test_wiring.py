"""That trainers hand on what their parts and keys are for: who judges whom, which views, which weights, which steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from coft.images.unlabeled import peer_batches
from coft.images.views import normalize, plain_view
from coft.method.cleanliness import clean_log_odds, p_clean
from tests.trainers.conftest import SHORT

PEERS = ("peer_a", "peer_b")
JUDGED = [("CoFT", (0, 1)), ("CoFTPlus", (0, 1, 2, 3))]


def begun(run: Callable[..., Any], trainer: str, epoch: int, **settings: Any) -> Any:
    """A trainer at the beginning of an epoch, with targets and batches."""
    built = run(trainer, train=False, **settings)
    built.before_train()
    built.epoch, built.batch_idx = epoch, 0
    built.before_epoch()
    return built


@pytest.mark.parametrize(("trainer", "epochs"), JUDGED)
def test_seeds_weigh_as_much_as_the_other_peer_finds_them_clean_once_each_round_is_warm(
    run: Callable[..., Any], trainer: str, epochs: tuple[int, ...]
) -> None:
    built = run(trainer, train=False, **{f"TRAINER__{trainer.upper()}__MIN_KEPT": 0})
    built.before_train()
    view, source = plain_view(built.cfg), torch.Generator().manual_seed(0)
    for peer in built.peers.values():
        peer.offset.data += 0.3 * torch.randn(peer.offset.shape, generator=source)  # else the peers say the same
    for epoch in epochs:
        built.epoch = epoch
        targets = built.filter_seeds()
        for name, judge in (PEERS, PEERS[::-1]):
            seeds, (positive, negative) = built.peers[name].seeds, built.peers[judge].text_features()
            images = torch.stack([view(built.pool.image(rank)) for rank in seeds.ranks.tolist()])
            with torch.no_grad():
                features = F.normalize(built.peers[judge].encoder.eval()(normalize(built.cfg)(images)), dim=-1)
                odds = clean_log_odds(features, positive, negative, built.peers[judge].scale)
            told = p_clean(odds, "coupled").gather(1, seeds.labels.unsqueeze(1)).squeeze(1)
            warm = epoch % 2 == 1  # two steps an epoch, and two of warm-up in each round of two epochs
            expected = told if warm else torch.ones(len(told))
            torch.testing.assert_close(targets[name].weight, expected.float(), atol=1e-4, rtol=1e-3)
            assert not warm or expected.std() > 0.01


def test_phase_one_learns_from_weak_views(run: Callable[..., Any]) -> None:
    built = begun(run, "CoFT", 0)
    ranks = {name: targets.ranks for name, targets in built.targets.items()}
    expected = peer_batches(built.pool, built.cfg, "weak", ranks, built.steps_per_epoch(1), built.cfg.SEED, 0)
    for ours, wanted in zip(built.train_loader_x, expected, strict=True):
        for name in PEERS:
            assert torch.equal(ours[name]["view"], wanted[name]["view"])


@pytest.mark.parametrize(
    ("trainer", "view"), [("SelfTraining", "strong"), ("LaFTer", "strong"), ("UPL", "weak"), ("GRIP", "weak")]
)
def test_rivals_learn_from_views_of_their_kind(run: Callable[..., Any], trainer: str, view: str) -> None:
    built = run(trainer, train=False)
    built.before_epoch()
    ours = list(built.train_loader_x)
    if hasattr(built, "targets"):
        ranks = {name: targets.ranks for name, targets in built.targets.items()}
    else:
        ranks = {name.replace("prompt_learner", "upl"): built.seeds.ranks for name in built.learners}
    wanted = list(peer_batches(built.pool, built.cfg, view, ranks, len(ours), built.cfg.SEED, built.settings, 0))
    assert all(torch.equal(a[name]["view"], b[name]["view"]) for a, b in zip(ours, wanted, strict=True) for name in a)


@pytest.mark.parametrize(
    ("epoch", "weights"),
    [(0, {"loss": 1, "dual": 0.3, "pull": 2}), (4, {"loss": 1, "dual": 0.7, "contrast": 0.4})],
)
def test_the_losses_are_added_by_their_weights(run: Callable[..., Any], epoch: int, weights: dict[str, float]) -> None:
    keys = {"LAMBDA_DUAL": 0.3, "KG_WEIGHT": 2.0, "PHASE2__LAMBDA_DUAL": 0.7, "CONTRAST__WEIGHT": 0.4}
    built = begun(run, "CoFTPlus", epoch, **{f"TRAINER__COFTPLUS__{key}": value for key, value in keys.items()})
    context = built.peers["peer_a"].prompts.positive.ctx.data
    context += torch.randn(context.shape, generator=torch.Generator().manual_seed(0))  # off the template: a pull
    seen: list[dict[str, torch.Tensor]] = []
    added: list[torch.Tensor] = []
    losses = built.losses
    built.losses = lambda *args: seen.append(losses(*args)) or seen[-1]
    built.descend = lambda loss, name: added.append(loss)
    built.update_lr = lambda name: None
    batches = list(built.train_loader_x)
    for batch in batches:  # the second finds something in the queue
        built.step(batch, "peer_a")
    for given, total in zip(seen, added, strict=True):
        assert given.keys() == weights.keys()
        assert total.item() == pytest.approx(sum(weights[key] * loss.item() for key, loss in given.items()), rel=1e-5)
    assert len(batches) > 1 and all(loss.item() > 1e-6 for loss in seen[-1].values())


@pytest.mark.parametrize("allowed", [True, False])
def test_the_dual_loss_reaches_the_image_encoder_where_the_key_says_so(run: Callable[..., Any], allowed: bool) -> None:
    built = begun(run, "CoFT", 0, TRAINER__COFT__NEG_GRAD_TO_VISUAL=allowed)
    built.losses("peer_a", next(iter(built.train_loader_x)))["dual"].backward()
    peer = built.peers["peer_a"]
    reached = [p.grad is not None and bool(p.grad.any()) for p in peer.encoder.parameters() if p.requires_grad]
    assert any(reached) == allowed and peer.offset.grad.any()


@pytest.mark.parametrize("trainer", ["CoFT", "SelfTraining"])
def test_every_step_moves_the_average_and_the_learning_rate(run: Callable[..., Any], trainer: str) -> None:
    section = {"CoFT": "COFT__PHASE2", "SelfTraining": "SELFTRAINING"}[trainer]
    first = SHORT["CoFT"]["TRAINER__COFT__PHASE1__EPOCHS"] if trainer == "CoFT" else 0
    built = begun(run, trainer, first, **{f"TRAINER__{section}__EMA": 0.1, f"TRAINER__{section}__LR": 1e-2})
    name, peer = next(iter(built.peers.items()))
    vectors = dict(peer.student.named_parameters())
    average = {key: value.detach().clone() for key, value in vectors.items()}
    steps = len(built.train_loader_x) * (built.own.PHASE2 if trainer == "CoFT" else built.own).EPOCHS
    for n, batch in enumerate(built.train_loader_x):
        assert built._optims[name].param_groups[0]["lr"] == pytest.approx(0.005 * (1 + math.cos(math.pi * n / steps)))
        built.batch_idx = n
        built.step(batch, name)
        if n:  # the first update of an average takes the values as they are
            decay = min(0.1, (1 + n) / (10 + n))
            average = {key: decay * old + (1 - decay) * vectors[key].detach() for key, old in average.items()}
        else:
            average = {key: value.detach().clone() for key, value in vectors.items()}
    assert n > 0
    for key, value in dict(peer.ema.module.named_parameters()).items():
        torch.testing.assert_close(value, average[key])


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_phase_two_is_averaged_with_phase_one_by_the_key(run: Callable[..., Any], share: float) -> None:
    built = run("CoFT", TRAINER__COFT__PHASE2__WISE=share)
    for name, peer in built.peers.items():
        start, end, tested = peer.prompted(), peer.teacher(), built.tested()[name]
        pairs = zip(start.encoder.parameters(), end.encoder.parameters(), tested.encoder.parameters(), strict=True)
        heads = [F.normalize(classifier.positive, dim=-1) for classifier in (start, end)]
        vectors = tested.positive if share < 1 else F.normalize(tested.positive, dim=-1)
        for first, last, found in [*pairs, (*heads, vectors)]:
            torch.testing.assert_close(found, (1 - share) * first + share * last)
