"""Two peers: shared weights, initial weights, and the start of phases."""

from __future__ import annotations

from typing import Any

import torch

from coft.core.seeding import derive, generator
from coft.method.coft import PARTNERS
from tests.coft.toys import PEERS, make_coft


def test_peers_share_the_frozen_weights_only() -> None:
    method = make_coft()
    frozen = {p.data_ptr() for p in method.engine.clip.visual.parameters()}
    pointers = [{p.data_ptr() for p in peer.parameters()} for peer in method.peers.values()]
    assert pointers[0] & pointers[1] and pointers[0] & pointers[1] <= frozen
    trained = [{p.data_ptr() for p in peer.parameters() if p.requires_grad} for peer in method.peers.values()]
    assert all(trained) and not trained[0] & trained[1] and not (trained[0] | trained[1]) & frozen
    assert PARTNERS == {"peer_a": "peer_b", "peer_b": "peer_a"} and tuple(method.peers) == PEERS


def test_initial_prompts_depend_on_seed_and_peer() -> None:
    differences = []
    for seed in (1, 2):
        peers, same_seed = (make_coft(seed=seed).peers for _ in range(2))
        for name in PEERS:
            prompts: Any = peers[name].prompts
            assert torch.equal(prompts.negative, same_seed[name].prompts.negative)  # type: ignore[arg-type]
            differences.append(prompts.negative - prompts.positive)
    assert not any(torch.equal(a, b) for n, a in enumerate(differences) for b in differences[:n])


def test_random_numbers_depend_on_their_name() -> None:
    names = [(1, "a"), (1, "b"), (2, "a"), (1, "a", 0), ("1", "a")]
    numbers = [derive(*name) for name in names]
    assert len(set(numbers)) == len(names) and all(0 <= number < 2**63 for number in numbers)
    assert torch.equal(torch.randn(3, generator=generator(1, "a")), torch.randn(3, generator=generator(1, "a")))
