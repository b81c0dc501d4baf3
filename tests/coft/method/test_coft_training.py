"""How CoFT trains: views, losses, steps, learning rates, averages, phases; resumed runs end in the same bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core import disk_tables
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.method.coft_settings import Phase2
from coft.method.negative_prompt import clean_log_odds, dual_loss
from coft.method.protocol import Runtime
from tests.coft.method.toys import (
    PEERS,
    PHASES,
    ToyImages,
    assert_same_bits,
    begun,
    load,
    make_coft,
    make_plus,
    saved,
    train,
    weights,
)


def test_epochs_and_phases_are_counted_through() -> None:
    method = make_coft()
    assert method.epochs == 5 and [method.phase(epoch) for epoch in range(6)] == [1, 1, 2, 2, 2, 2]
    losses = train(method)
    assert [len(steps) for steps in losses] == [2, 2, 8, 8, 8]
    assert [set(steps[0]) for steps in losses] == 2 * [{"loss_a", "loss_b", "dual_a", "dual_b"}] + 3 * [
        {"loss_a", "loss_b"}
    ]
    assert [peer.phase for peer in method.peers.values()] == [2, 2]
    assert [optimizer.phase for optimizer in method.optimizers.values()] == [2, 2]
    assert list(method.models) == list(method.optimizers) == list(method.schedulers) == list(PEERS)


@pytest.mark.parametrize(("epoch", "view"), [(0, "weak"), (2, "strong"), (3, "strong")])
def test_phase_one_learns_from_weak_views_and_phase_two_from_strong_ones(epoch: int, view: str) -> None:
    method = make_coft()
    method.begin()
    method.begin_epoch(2)
    batches = method.begin_epoch(epoch)
    index = {name: labels.index for name, labels in method.labels.items()}
    expected = method.images.batches(view, index, len(batches), 1, epoch)
    for ours, wanted in zip(batches, expected, strict=True):
        assert all(torch.equal(ours[name]["view"], wanted[name]["view"]) for name in PEERS)


@pytest.mark.usefixtures("warm_at_once")
@pytest.mark.parametrize("epoch", [1, 2])
def test_losses_equal_their_definition(epoch: int) -> None:
    """A batch of a peer, with heads, filter, frequencies and complements written out."""
    method = make_coft({"seeds_per_class": 5, "seeds_share": 1.0})
    batch = begun(method, epoch)[0]
    for name in PEERS:
        losses, model = method.losses(batch, name), method.peers[name].learner()
        features = F.normalize(model.encoder(batch[name]["view"]), dim=-1)
        positive, negative = F.normalize(model.positive, dim=-1), F.normalize(model.negative, dim=-1)
        labels = method.labels[name]
        place = [labels.index.tolist().index(i) for i in batch[name]["index"].tolist()]
        label, weight = labels.label[place], labels.weight[place]
        logits = model.scale * features @ positive.t() + method.frequency[name]
        each = [w * F.cross_entropy(x[None], y[None]) for x, y, w in zip(logits, label, weight, strict=True)]
        scale, found = losses["loss"]
        assert scale == 1
        torch.testing.assert_close(found, sum(each) / max(1.0, float(weight.sum())), atol=1e-5, rtol=1e-4)
        assert set(losses) == ({"loss", "dual"} if epoch == 1 else {"loss"})
        if epoch == 1:
            dual = method.dual_labels[name].label[place]
            odds = clean_log_odds(features, positive, negative, model.scale)
            expected = sum(dual_loss(odds, dual, (dual + shift) % 3) for shift in (1, 2)) / 2
            torch.testing.assert_close(losses["dual"][1], expected, atol=1e-5, rtol=1e-4)


def test_the_losses_are_added_by_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch, expected in ((0, {"loss": 1.0, "dual": 0.3}), (4, {"loss": 1.0, "contrast": 0.4})):
        contrast = replace(make_plus().settings.contrast, weight=0.4)
        method = make_plus({"lambda_dual": 0.3, "contrast": contrast})
        batches = begun(method, epoch)
        seen: list[dict[str, tuple[float, Tensor]]] = []
        added: list[float] = []
        losses = method.losses
        monkeypatch.setattr(method, "losses", lambda *args, f=losses, s=seen: s.append(f(*args)) or s[-1])
        plain = method.runtime.descend
        monkeypatch.setattr(
            method.runtime,
            "descend",
            lambda loss, *args, a=added, f=plain: a.append(float(loss.detach())) or f(loss, *args),
        )
        reported = [method.step(batch) for batch in batches[:2]]  # the second finds something in the queue
        for given, total in zip(seen, added, strict=True):
            assert {key: weight for key, (weight, _) in given.items()} == expected
            assert total == pytest.approx(sum(expected[key] * float(loss.detach()) for key, (_, loss) in given.items()))
        last = [{key: float(loss.detach()) for key, (_, loss) in given.items()} for given in seen[-2:]]
        assert reported[-1] == {f"{key}_{name[-1]}": x for name, own in zip(PEERS, last, strict=True)
                            for key, x in own.items()}  # fmt: skip
        assert min(reported[-1].values()) > 1e-6


@pytest.mark.parametrize("allowed", [True, False])
def test_the_dual_loss_reaches_the_image_encoder_where_the_setting_says_so(allowed: bool) -> None:
    method = make_coft({"neg_grad_to_visual": allowed})
    batch = begun(method)[0]
    method.losses(batch, "peer_a")["dual"][1].backward()
    peer = method.peers["peer_a"]
    reached = [p.grad is not None and bool(p.grad.any()) for p in peer.encoder.parameters() if p.requires_grad]
    assert any(reached) == allowed and bool(peer.offset.grad.any()) and bool(peer.prompts.negative.grad.any())
    assert peer.prompts.positive.grad is None or not peer.prompts.positive.grad.any()


def test_what_trains_in_each_phase() -> None:
    method = make_coft({"class_negative": True})
    start = weights(method)
    train(method, 2)
    phase1 = weights(method)
    moved = {key for key in start if not torch.equal(start[key], phase1[key])}
    own = {"encoder.1.bias", "encoder.3.bias", "offset", "prompts.positive", "prompts.negative"}
    assert moved == {f"{name}.{key}" for name in PEERS for key in own} == set(start)
    assert all(torch.equal(p, q) for peer in method.peers.values()
               for p, q in zip(peer.encoder[1].weight, method.backbone.visual[1].weight, strict=True))  # fmt: skip
    train(method, start=2)
    end = weights(method)
    assert all(torch.equal(phase1[key], end[key]) for key in phase1)
    for name, peer in method.peers.items():
        students = dict(peer.student.encoder.named_parameters())
        assert all(not torch.equal(value, peer.encoder.get_parameter(key)) for key, value in students.items())
        assert not torch.equal(peer.student.positive, peer.text_features()[0]), name


def test_every_step_moves_the_average_and_the_learning_rates() -> None:
    method = make_coft({"phase2": replace(PHASES["phase2"], ema=0.1, lr=1e-2)})
    batches, name = begun(method, 2), "peer_a"
    peer = method.peers[name]
    vectors = dict(peer.student.named_parameters())
    average = {key: value.detach().clone() for key, value in vectors.items()}
    steps = len(batches) * method.settings.phase2.epochs
    for n, batch in enumerate(batches):
        for group, factor in zip(method.optimizers[name].param_groups, (1, 10), strict=True):
            assert group["lr"] == pytest.approx(factor * 0.005 * (1 + math.cos(math.pi * n / steps)))
        method.step(batch)
        decay = min(0.1, (1 + n) / (10 + n)) if n else 0.0  # the first update takes the values as they are
        average = {key: decay * old + (1 - decay) * vectors[key].detach() for key, old in average.items()}
    assert n > 0
    for key, value in dict(peer.ema.module.named_parameters()).items():
        torch.testing.assert_close(value, average[key])


def test_the_optimizer_of_phase_one_is_the_one_that_is_given_on_a_cosine() -> None:
    given: list[list[Any]] = []

    def make(parameters: Any) -> Any:
        given.append(list(parameters))
        return torch.optim.Adam(given[-1], lr=0.02)

    method = make_coft(make_optimizer=make)
    for peer, parameters in zip(method.peers.values(), given, strict=True):
        assert [id(p) for p in parameters] == [id(p) for p in peer.parameters() if p.requires_grad]
    steps = begun(method)
    for n, batch in enumerate(steps):
        rate = method.optimizers["peer_b"].param_groups[0]["lr"]
        assert rate == pytest.approx(0.01 * (1 + math.cos(math.pi * n / (2 * len(steps)))))
        method.step(batch)
    assert type(make_coft().optimizers["peer_a"].optimizer) is torch.optim.SGD


def test_training_learns() -> None:
    """Given labels, the peers come to predict them: the loop optimises what it says it does."""
    images = ToyImages()
    labels = (images.truth + 1) % 3  # nothing that CLIP would say

    def reported(own: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(labels)

    phase2 = Phase2(15, lr=5e-3, refresh=100, ema=0.9, wise=1.0)
    method = make_coft({"phase2": phase2, "classify": "positive"}, images=images, filter=reported)
    train(method, 2)
    assert (method.predict(images.pixels).argmax(dim=1) == labels).float().mean() < 0.2
    train(method, start=2)
    assert (method.predict(images.pixels).argmax(dim=1) == labels).float().mean() > 0.9


def test_a_loss_that_is_no_number_is_named() -> None:
    method = make_coft(make_optimizer=lambda parameters: torch.optim.SGD(list(parameters), lr=float("inf")))
    batches = begun(method)
    method.step(batches[0])
    with pytest.raises(FloatingPointError, match="peer_a: the loss is nan"):
        method.step(batches[1])


# -------------------------------------------------------------------- bits


@pytest.mark.usefixtures("warm_at_once")
@pytest.mark.parametrize("filter", ["both", "self"])
def test_a_run_resumed_after_any_epoch_ends_in_the_same_bits(filter: str) -> None:
    whole = make_coft({"filter": filter, "seeds_per_class": 5, "seeds_share": 1.0})
    whole.begin()
    checkpoints = []
    for epoch in range(whole.epochs):
        for batch in whole.begin_epoch(epoch):
            whole.step(batch)
        whole.end_epoch(epoch)
        checkpoints.append(saved(whole))
    for done, checkpoint in enumerate(checkpoints, start=1):
        resumed = make_coft({"filter": filter, "seeds_per_class": 5, "seeds_share": 1.0})
        load(resumed, checkpoint)
        assert [peer.phase for peer in resumed.peers.values()] == [1 if done <= 2 else 2] * 2
        train(resumed, start=done)
        assert_same_bits(weights(whole), weights(resumed))
        assert torch.equal(whole.predict(whole.images.pixels), resumed.predict(whole.images.pixels))
        for name in PEERS:
            for own in ("seeds", "labels"):
                a, b = (getattr(method.peers[name], own) for method in (whole, resumed))
                assert torch.equal(a.index, b.index) and torch.equal(a.label, b.label)
                assert torch.equal(a.weight, b.weight)


def test_a_checkpoint_of_a_late_epoch_goes_back_to_an_earlier_one() -> None:
    early, late = make_coft(), make_coft()
    train(early, 1)
    train(late)
    load(late, saved(early))
    assert_same_bits(weights(early), weights(late))
    images = early.images.pixels
    assert torch.equal(early.predict(images), late.predict(images))
    train(late, start=1)
    train(early, start=1)
    assert_same_bits(weights(early), weights(late))


def test_the_seed_changes_weights() -> None:
    """The comparisons of bits could see a difference if there were one."""
    first, second = make_coft(seed=1), make_coft(seed=2)
    train(first), train(second)
    assert any(not torch.equal(a, weights(second)[key]) for key, a in weights(first).items())


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_peers_that_step_at_the_same_time_do_what_they_do_in_turn(make: Any) -> None:
    found = []
    for together in (True, False):
        method = make()
        assert method.pair.parallel.threads == 1
        if not together:
            method.runtime.run_in_turn()
        train(method)
        found.append(weights(method))
    assert_same_bits(*found)


def test_micro_batches_and_a_compiler_change_no_bit() -> None:
    found = []
    for options in ({}, {"micro_batch": 1000}, {"compiler": "eager"}):
        method = make_coft(runtime=Runtime(1, **options))
        train(method)
        found.append(weights(method))
        compiled = getattr(method.peers["peer_a"].student.encoder, "_compiled_call_impl", None)  # torch's own
        assert (compiled is not None) == ("compiler" in options)
    assert_same_bits(found[0], found[1])
    assert_same_bits(found[0], found[2])


@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_mapped_tables_change_no_bit(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory, mapped = make(), make()
    made: list[Any] = []
    plain = torch.from_file
    monkeypatch.setattr(disk_tables, "IN_MEMORY", 0)
    monkeypatch.setattr(torch, "from_file", lambda *args, **options: made.append(args) or plain(*args, **options))
    mapped.runtime.allocate = disk_tables.tables_in(tmp_path)
    train(in_memory)
    assert not made
    train(mapped)
    assert made and not list(tmp_path.iterdir())
    assert_same_bits(weights(in_memory), weights(mapped))


def test_bf16_trains_fp32_weights_and_logits_are_no_coarser_than_the_features() -> None:
    """In bf16 a logit of 25 would be off by up to 1/16, and so would a log-odds near 0."""
    exact, method = make_coft(), make_coft(runtime=Runtime(1, dtype=torch.bfloat16))
    train(exact), train(method)
    assert {value.dtype for value in weights(method).values() if value.is_floating_point()} == {torch.float32}
    assert any(not torch.equal(a, weights(exact)[key]) for key, a in weights(method).items())
    with torch.no_grad(), method.runtime.autocast():
        scores = method.peers["peer_a"].learner()(method.images.pixels)
    for values in scores:
        assert values.dtype == torch.float32 and not torch.equal(values, values.bfloat16().float())
