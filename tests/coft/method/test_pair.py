"""Two peers: what they share, how they are built, and to what their negative vectors are fitted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from coft.core.seeding import derive, generator
from coft.labelling.pseudo_labels import PseudoLabels
from coft.method import negative_prompt, negatives
from coft.method.negative_prompt import draw, fit_negative
from coft.method.pair import PARTNERS
from tests.coft.method.toys import COUNT, PEERS, make_coft, weights


def test_peers_share_the_frozen_encoder_and_nothing_that_trains() -> None:
    made = make_coft().pair
    frozen = {p.data_ptr() for p in made.backbone.visual.parameters()}
    pointers = [{p.data_ptr() for p in peer.parameters()} for peer in made.peers.values()]
    assert pointers[0] & pointers[1] and pointers[0] & pointers[1] <= frozen
    trained = [{p.data_ptr() for p in peer.parameters() if p.requires_grad} for peer in made.peers.values()]
    assert all(trained) and not trained[0] & trained[1] and not (trained[0] | trained[1]) & frozen
    assert PARTNERS == {"peer_a": "peer_b", "peer_b": "peer_a"} and tuple(made.peers) == PEERS


def test_starts_are_functions_of_seed_and_peer() -> None:
    starts = {}
    for seed in (1, 2):
        made = make_coft(seed=seed).pair
        for name in PEERS:
            prompts, _ = made.fresh_start(name)
            again, _ = make_coft(seed=seed).pair.fresh_start(name)
            assert torch.equal(prompts.negative, again.negative)
            starts[seed, name] = prompts.negative - prompts.positive
    values = list(starts.values())
    assert not any(torch.equal(a, b) for n, a in enumerate(values) for b in values[:n])


def test_entering_a_phase_happens_once() -> None:
    made = make_coft().pair
    made.enter(1)
    assert [peer.phase for peer in made.peers.values()] == [1, 1]
    made.enter(2)
    students = [peer.student for peer in made.peers.values()]
    optimizers = [optimizer.optimizer for optimizer in made.optimizers.values()]
    for peer in made.peers.values():
        peer.train()
    made.enter(2)
    assert students == [peer.student for peer in made.peers.values()]
    assert optimizers == [optimizer.optimizer for optimizer in made.optimizers.values()]
    assert not any(peer.training or peer.student.training for peer in made.peers.values())
    assert all(isinstance(optimizer, torch.optim.AdamW) for optimizer in optimizers)


@pytest.mark.parametrize("known", [True, False])
def test_negative_vectors_are_fitted_to_labels_that_are_drawn_where_there_are_many(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negative_prompt, "FIT_IMAGES", 8)
    monkeypatch.setattr(negative_prompt, "FIT_BATCH", 4)
    monkeypatch.setattr(negatives, "fit_negative", fit_negative)
    method = make_coft()
    made = method.pair
    label = torch.arange(COUNT) % 3
    labels = {
        "peer_a": PseudoLabels.of_pool(label, torch.linspace(0.1, 1, COUNT)),
        "peer_b": PseudoLabels.certain(torch.arange(COUNT), label).at(torch.tensor([4, 1, 0, 29, 17])),
    }
    teachers = made.teachers()
    features = made.labeller.encode(teachers, 2, 5)
    expected = {}
    for name, own in labels.items():
        source = generator(1, "negative", name, 5)
        chosen = own.at(draw(len(own.index), source))
        assert len(chosen.index) == min(8, len(own.index))
        model = teachers[name]
        args = (features[name][chosen.index], chosen.label, chosen.weight, model.positive, model.negative, model.scale)
        expected[name] = fit_negative(*args, source)
    method.negatives.fit(teachers, labels, 2, 5, features if known else None)
    for name, peer in made.peers.items():
        torch.testing.assert_close(peer.text_features()[1], expected[name])


def test_a_step_reports_all_losses_and_touches_each_peer_s_weights_alone() -> None:
    made = make_coft().pair
    method: Any = type("Models", (), {"models": dict(made.peers)})
    before = weights(method)

    def losses(name: str) -> dict[str, tuple[float, torch.Tensor]]:
        offset = made.peers[name].offset
        return {"pull": (2.0, offset.square().sum()), "none": (0.0, offset.sum() * (name == "peer_a"))}

    reported = made.step(losses)
    assert list(reported) == ["pull_a", "none_a", "pull_b", "none_b"]
    assert reported["pull_b"] == pytest.approx(float(before["peer_b.offset"].square().sum()))
    after = weights(method)
    for name in PEERS:
        offset = before[f"{name}.offset"]
        torch.testing.assert_close(after[f"{name}.offset"], offset - 0.03 * (4 * offset + 5e-4 * offset))


def test_seeds_of_random_numbers_are_by_name() -> None:
    names = [(1, "a"), (1, "b"), (2, "a"), (1, "a", 0), ("1", "a")]
    numbers = [derive(*name) for name in names]
    assert len(set(numbers)) == len(names) and all(0 <= number < 2**63 for number in numbers)
    assert torch.equal(torch.randn(3, generator=generator(1, "a")), torch.randn(3, generator=generator(1, "a")))
