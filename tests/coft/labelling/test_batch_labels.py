"""Labels of a batch, by text and image prototypes, against naive loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coft.core.table import Table
from coft.labelling.batch_labels import BatchLabeller
from coft.labelling.classifier import Classifier
from coft.labelling.predictor import final_classifier
from coft.labelling.prototypes import probability_by_image
from tests.coft.naive import softmax

SCALE = 6.0


def random_unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_labels_equal_a_naive_loop(tau: float) -> None:
    pool, views, texts = random_unit(40, 1), random_unit(25, 2), random_unit(4, 3)
    label = torch.arange(40) % 3  # class 3 has no image
    model = Classifier(nn.Flatten(), texts, None, SCALE)
    labeller = BatchLabeller.of_pool(label, Table.of(pool), final_classifier(model), tau)
    products = [[SCALE * float(x @ t) for t in texts] for x in pool]
    prior = [sum(softmax(row)[c] for row in products) / len(pool) for c in range(4)]
    moved = texts[3] - texts.mean(dim=0) + pool.mean(dim=0)
    means = [pool[label == c].mean(dim=0) if c < 3 else moved for c in range(4)]
    prototypes = [F.normalize(mean, dim=0) for mean in means]
    expected = []
    for x in views:
        by_text = softmax([SCALE * float(x @ t) - tau * math.log(p) for t, p in zip(texts, prior, strict=True)])
        by_image = softmax([SCALE * float(x @ m) for m in prototypes])
        both = [a + b for a, b in zip(by_text, by_image, strict=True)]
        expected.append(both.index(max(both)))
    assert labeller.label_views(model, views).tolist() == expected
    by_text_alone = (SCALE * views @ texts.t() - tau * torch.tensor(prior).log()).argmax(dim=1)
    assert by_text_alone.tolist() != expected  # both sides count
    assert BatchLabeller.from_state(labeller.state_dict()).label_views(model, views).tolist() == expected


def test_image_probabilities_are_in_full_precision() -> None:
    features, prototypes = (random_unit(count, seed).float() for count, seed in ((20, 1), (4, 2)))
    expected = probability_by_image(features, prototypes, 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(probability_by_image(features, prototypes, 100.0), expected)
