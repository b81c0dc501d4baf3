"""What the experiments measure and show."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from coft.engine.diagnostics import Diagnostics
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from scripts.comparing import peer_diagnostics as module
from scripts.comparing.peer_diagnostics import fit_head, same_errors, survival


def labelled(labels: list[int]) -> Predictions:
    return Predictions(torch.tensor(labels), torch.zeros(len(labels), 3), torch.zeros(len(labels), 3))


def test_same_errors_are_counted_for_both_peers() -> None:
    truth = Diagnostics([0, 0, 1, 1, 2, -1])
    both = {"peer_a": labelled([0, 1, 2, 0, 2, 1]), "peer_b": labelled([1, 1, 2, 2, 2, 1])}
    wrong = [truth.wrong(own.label) for own in both.values()]
    assert [own.tolist() for own in wrong] == [[False, True, True, True, False, False], [True] * 4 + [False] * 2]
    assert same_errors(*wrong, both) == pytest.approx(2 * 2 / (3 + 4))


def test_errors_survive_by_their_neighbourhood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEAR", 3)
    source = torch.Generator().manual_seed(2)
    features, truth = torch.randn(40, 4, generator=source), torch.randint(3, (40,), generator=source)
    flips = torch.rand(2, 40, generator=source)
    first, last = (torch.where(flips[k] < (0.4, 0.2)[k], (truth + 1) % 3, truth) for k in (0, 1))
    found = survival(Diagnostics(truth), {"first": first, "last": last}, features)
    centred = F.normalize(features - features.mean(dim=0), dim=1)
    kinds: dict[str, list[bool]] = {"alone": [], "among wrong ones": []}
    for i in range(40):
        near = sorted((j for j in range(40) if j != i), key=lambda j: -float(centred[i] @ centred[j]))[:3]
        if first[i] != truth[i]:
            right = sum(int(first[j] == truth[j]) for j in near)
            kinds["alone" if right >= 1.5 else "among wrong ones"].append(bool(last[i] == truth[i]))
    total = sum(map(len, kinds.values()))
    for kind, ends in kinds.items():
        assert found[kind] == pytest.approx(len(ends) / total)
        assert found[f"{kind}, right in the end"] == pytest.approx(sum(ends) / len(ends))


def test_a_second_head_learns_the_labels_that_count() -> None:
    source = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(3, 8, generator=source), dim=1)
    truth = torch.arange(60) % 3
    features = F.normalize(centres[truth] + 0.1 * torch.randn(60, 8, generator=source), dim=1)
    weight = (torch.arange(60) < 30).float()
    noisy = torch.where(weight > 0, truth, (truth + 1) % 3)  # what has no weight is wrong
    head = fit_head(features, PseudoLabels.of_pool(noisy, weight), centres.roll(1, 0), 10.0)
    assert ((features @ head.t()).argmax(dim=1) == truth).float().mean() > 0.9
    torch.testing.assert_close(head.norm(dim=1), torch.ones(3))
