from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from coft.backbones.descriptions import described_features, load_descriptions
from coft.method.parallel import SideBySide
from coft.method.seeds import Seeds, growing_quotas
from coft.runtime.errors import UserError
from tests.trainers.conftest import assert_same_bits, weights
from trainers.coft_plus import ASIDE
from trainers.parts import judging

PEERS = ("peer_a", "peer_b")
OFF = {
    "TRAINER__COFTPLUS__ROUNDS": 1,
    "TRAINER__COFTPLUS__CONTRAST__WEIGHT": 0.0,
    "TRAINER__COFTPLUS__DESCRIPTIONS__FROM": "none",
}


@pytest.mark.parametrize("backbone", ["resnet", "vit"])
def test_without_its_parts_it_is_coft(run: Callable[..., Any], backbone: str) -> None:
    plain, plus = run("CoFT", backbone, out="plain"), run("CoFTPlus", backbone, out="plus", **OFF)
    assert_same_bits(weights(plain), weights(plus))
    assert plain.results["accuracy_test"] == plus.results["accuracy_test"]


def test_each_part_changes_the_result(run: Callable[..., Any], described: Path) -> None:
    none = weights(run("CoFTPlus", out="none", **OFF))
    parts: dict[str, Any] = {
        "TRAINER__COFTPLUS__ROUNDS": 2,
        "TRAINER__COFTPLUS__CONTRAST__WEIGHT": 0.5,
        "TRAINER__COFTPLUS__DESCRIPTIONS__FROM": str(described),
    }
    for key, value in parts.items():
        changed = weights(run("CoFTPlus", out=key, **(OFF | {key: value})))
        assert any(key not in changed or not torch.equal(none[key], changed[key]) for key in none), key


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 6])
def test_a_run_stopped_after_any_epoch_goes_on_to_the_same_bits(run: Callable[..., Any], stop: int) -> None:
    """Stops in a round, where a round begins, where Phase II does, and in it."""
    whole = run("CoFTPlus", out="whole")

    class Stop(Exception):
        pass

    first = run("CoFTPlus", out="stopped", train=False)
    original = first.forward_backward

    def fail(batch: Any) -> Any:
        if first.epoch == stop and first.batch_idx == 1:
            raise Stop
        return original(batch)

    first.forward_backward = fail
    with pytest.raises(Stop):
        first.train()
    resumed = run("CoFTPlus", out="stopped")
    assert resumed.start_epoch == stop
    assert_same_bits(weights(whole), weights(resumed))


def test_a_round_begins_afresh_with_seeds_that_both_peers_choose(run: Callable[..., Any]) -> None:
    trainer = run("CoFTPlus", train=False)
    trainer.before_train()
    start = weights(trainer)
    trainer.epoch = 0
    trainer.before_epoch()
    for i, batch in enumerate(trainer.train_loader_x):
        trainer.batch_idx = i
        trainer.forward_backward(batch)
    trainer.epoch = trainer.own.PHASE1.EPOCHS  # which the views of the labels depend on
    views = trainer._classify(None)
    mean = sum(((views[name][0] + views[name][1]) / 2).double().softmax(dim=1) for name in PEERS) / 2
    trainer.before_epoch()
    scores = (mean.log() - 0.5 * mean.mean(dim=0).log()).softmax(dim=1)
    mine, others = (set(trainer.peers[name].seeds.ranks.tolist()) for name in PEERS)
    assert mine and others and not mine & others
    best = {c: int(scores[:, c].where(scores.argmax(1) == c, -torch.inf).argmax()) for c in scores.argmax(1).tolist()}
    for c, rank in best.items():
        peer = trainer.peers["peer_a"].seeds
        assert rank in peer.ranks[peer.labels == c].tolist()
    fresh = weights(trainer)
    assert any(not torch.equal(start[key], fresh[key]) for key in start)  # another start, not that of the first round
    torch.testing.assert_close(trainer.peers["peer_a"].prompted().positive, trainer.anchors["peer_a"])


def test_quotas_count_the_labels_that_seeds_are_chosen_by(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = run("CoFTPlus", TRAINER__COFTPLUS__ROUNDS=2, train=False)
    trainer.before_train()
    logits = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3]]).repeat_interleave(len(trainer.pool) // 3, dim=0)
    logits[:, 0] += 2.9 + 0.2 * (torch.arange(len(logits)) % 2)  # half too many of the first class
    given: list[torch.Tensor] = []
    sure = SimpleNamespace(clean_at=lambda labels: torch.ones(len(labels)))
    monkeypatch.setattr(trainer, "_classify", lambda ranks: dict.fromkeys(PEERS, (logits, torch.zeros_like(logits))))
    monkeypatch.setattr(trainer, "opinions_of", lambda views: dict.fromkeys(PEERS, sure))
    monkeypatch.setattr(trainer, "share_seeds", lambda scores, quotas: given.extend((scores, quotas)) or {})
    trainer.begin_round(1)
    found = given[0].argmax(dim=1).tolist()
    assert given[1].tolist() == [found.count(c) for c in range(3)] == [len(logits) // 3] * 3


def test_quotas_grow_geometrically_to_the_coverage() -> None:
    coverage = torch.tensor([128, 8, 0, 32])
    assert growing_quotas(coverage, 8, 0.0).tolist() == [8, 8, 8, 8]
    assert growing_quotas(coverage, 8, 0.5).tolist() == [32, 8, 8, 16]
    assert growing_quotas(coverage, 8, 1.0).tolist() == [128, 8, 8, 32]


def test_contrast_uses_the_images_that_the_filter_leaves_out(run: Callable[..., Any]) -> None:
    trainer = run("CoFTPlus", train=False)
    trainer.before_train()
    trainer.epoch = trainer.phase1_epochs
    trainer.before_epoch()
    for peer in trainer.peers.values():
        peer.lesson.weight[:] = (torch.arange(len(peer.lesson.weight)) % 3 > 0).float()
    batch = next(iter(trainer.draw_batches()))
    trainer.batch_idx = 0
    for name, peer in trainer.peers.items():
        kept, aside = (batch[group]["rank"] for group in (name, name + ASIDE))
        assert peer.lesson.keep[kept].all() and not peer.lesson.keep[aside].any()
        assert len(aside) <= len(kept)
        ranks = torch.cat([kept, aside])
        views = torch.cat([batch[group]["view"] for group in (name, name + ASIDE)])
        student, teacher = peer.student, peer.teacher()
        z = F.normalize(torch.relu(student.features(views[:, 0]) @ student.projection.hidden.t())
                        @ student.projection.out.t(), dim=-1)  # fmt: skip
        own = teacher.projection(teacher.features(views[:, 1]))
        torch.testing.assert_close(trainer.peers[name].queue.filled()[0], own[:0])
        trainer.targets[name] = trainer.targets[name].__class__(
            ranks=kept, labels=peer.lesson.labels[kept], weight=torch.ones(len(kept)),
            dual_labels=peer.lesson.labels[kept], adjustment=torch.zeros(len(trainer.classnames)),
        )  # fmt: skip
        first = trainer.losses(name, batch)["contrast"].item()
        assert first == pytest.approx(0, abs=1e-5)  # an empty queue: nothing to tell apart
        keys, queued = peer.queue.filled()
        torch.testing.assert_close(keys, own.detach())
        assert torch.equal(queued, ranks)
        expected = []
        for i, anchor in enumerate(ranks.tolist()):
            labels, keep = peer.lesson.labels, peer.lesson.keep
            scores = [z[i] @ own[i]] + [z[i] @ k for k in keys]
            good = [0] + [1 + j for j, r in enumerate(queued.tolist())
                          if r != anchor and labels[r] == labels[anchor] and keep[r] and keep[anchor]]  # fmt: skip
            bad = [1 + j for j, r in enumerate(queued.tolist()) if labels[r] != labels[anchor]]
            total = torch.stack([scores[j] for j in good + bad]).div(0.07).logsumexp(0)
            expected.append(sum(total - scores[j] / 0.07 for j in good) / len(good))
        torch.testing.assert_close(
            trainer.losses(name, batch)["contrast"], torch.stack(expected).mean(), rtol=1e-3, atol=1e-4
        )


def test_descriptions_have_a_share_in_seeds_and_predictions(run: Callable[..., Any], described: Path) -> None:
    trainer = run("CoFTPlus", train=False, TRAINER__COFTPLUS__DESCRIPTIONS__FROM=str(described))
    args = (trainer.clip_model, trainer.classnames, trainer.templates, load_descriptions(described))
    torch.testing.assert_close(trainer.text_features(), described_features(*args, 0.25))
    plain, tested = trainer.peers["peer_a"].prompted().eval(), trainer.deploy()["peer_a"]
    image = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (logits, log_odds), features = tested(image), plain.features(image)
    mixed = 0.9 * F.normalize(plain.positive, dim=-1) + 0.1 * described_features(*args, 1.0)
    torch.testing.assert_close(logits, plain.scale * features @ F.normalize(mixed, dim=-1).t())
    torch.testing.assert_close(log_odds, plain.classify(features)[1])  # the negative vectors know nothing of the share


@pytest.mark.parametrize("split", [True, False])
def test_negative_vectors_that_judge_know_no_more_seeds_than_the_first_round_had(
    run: Callable[..., Any], split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = run("CoFTPlus", train=False, TRAINER__COFTPLUS__SPLIT_SEEDS=split)
    fitted: list[torch.Tensor] = []

    def recorded(features: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        fitted.append(labels)
        return rest[1]

    monkeypatch.setattr(judging, "fit_negative", recorded)
    monkeypatch.setattr(SideBySide, "map", lambda _, function, names, together=True: [function(n) for n in names])
    first = trainer.seeds_per_class * (1 if split else 2)
    for peer in trainer.peers.values():  # one class has more than in the first round, the other fewer
        peer.seeds = Seeds(torch.arange(first + 4), torch.tensor([0] * (first + 3) + [1]))
    surest = trainer.surest_seeds()
    trainer.fit_negatives()
    for seeds, labels in zip(surest.values(), fitted, strict=True):
        assert seeds.ranks.tolist() == [*range(first), first + 3]
        assert labels.tolist() == [0] * first + [1]


def test_wrong_settings_are_named(run: Callable[..., Any], tmp_path: Path) -> None:
    for settings, message in (
        (
            {"TRAINER__COFTPLUS__CONTRAST__TEMPERATURE": 0.0},
            r"TEMPERATURE is 0\.0; expected a number above 0",
        ),
        ({"TRAINER__COFTPLUS__ROUNDS": 0}, r"COFTPLUS\.ROUNDS is 0; expected at least 1"),
        ({"TRAINER__COFTPLUS__DESCRIPTIONS__AT_SEEDS": 2.0}, "expected a number from 0 to 1"),
        ({"TRAINER__COFTPLUS__DESCRIPTIONS__FROM": str(tmp_path / "no.json")}, "no.json"),
        ({"TRAINER__COFTPLUS__FILTER": "bothh"}, "TRAINER.COFTPLUS.FILTER is 'bothh'"),
    ):
        with pytest.raises(UserError, match=message):
            run("CoFTPlus", out=message[:4], **settings).train()


def test_a_data_set_without_descriptions_goes_on_with_a_warning(run: Callable[..., Any], caplog: Any) -> None:
    trainer = run("CoFTPlus", train=False)
    assert trainer.described is None
    assert "goes on without descriptions" in caplog.text
