"""Filter rules against naive loops."""

from __future__ import annotations

import pytest
import torch

from coft.core.table import Table
from coft.labelling.pseudo_labels import Predictions
from coft.method.filters import FILTERS

N, C = 200, 5


def make_predictions(seed: int) -> Predictions:
    source = torch.Generator().manual_seed(seed)
    probability = (torch.randn(N, C, generator=source) * 2).softmax(dim=1)
    clean = torch.rand(N, C, generator=source)
    return Predictions(probability.argmax(dim=1), Table.of(probability), Table.of(clean))


def expected(rule: str, peer: Predictions, partner: Predictions, i: int) -> tuple[int, float]:
    (probability, clean), (_, other) = ((p.probability.all(), p.clean.all()) for p in (peer, partner))
    own_label, y = int(peer.label[i]), int(partner.label[i])
    minimum = min(float(clean[i, y]), float(other[i, y]))
    return {
        "min-p-clean": (y, minimum),
        "min-p-clean-hard": (y, float(minimum > 0.5)),
        "partner": (y, float(other[i, y])),
        "min-softmax": (y, min(float(probability[i, y]), float(partner.probability.all()[i, y]))),
        "own": (own_label, float(clean[i, own_label])),
        "none": (y, 1.0),
    }[rule]


@pytest.mark.parametrize("rule", FILTERS)
def test_every_rule_equals_a_naive_loop(rule: str) -> None:
    peer, partner = make_predictions(0), make_predictions(1)
    labels = FILTERS[rule](peer, partner)
    labels_and_weights = [expected(rule, peer, partner, i) for i in range(N)]
    assert [(int(y), float(w)) for y, w in zip(labels.label, labels.weight, strict=True)] == labels_and_weights
    assert labels.keep.tolist() == [w > 0.5 for _, w in labels_and_weights]
    assert labels.index.tolist() == list(range(N)) and labels.weight.dtype == torch.float32
