"""Pseudo-labels and predictions against naive loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coft.core.schemas import SchemaError
from coft.core.table import Table
from coft.labelling.pseudo_labels import Predictions, PseudoLabels

Row = tuple[int, int, float]


def random_labels(count: int, seed: int = 0) -> PseudoLabels:
    source = torch.Generator().manual_seed(seed)
    index = torch.randperm(3 * count, generator=source)[:count]
    weight = torch.rand(count, generator=source).round(decimals=1)
    return PseudoLabels(index, torch.randint(4, (count,), generator=source), weight)


def rows(labels: PseudoLabels) -> list[Row]:
    columns = (labels.index, labels.label, labels.weight)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 1000))
def test_labels_are_selected_by_image(count: int, seed: int) -> None:
    labels = random_labels(count, seed)
    images = labels.index[torch.randint(count, (7,), generator=torch.Generator().manual_seed(seed))]
    by_image = {row[0]: row for row in rows(labels)}
    assert rows(labels.of(images)) == [by_image[i] for i in images.tolist()]


def test_labels_are_selected_by_weight_and_position() -> None:
    labels = random_labels(40)
    assert rows(labels.nonzero()) == [row for row in rows(labels) if row[2] > 0] != rows(labels)
    assert labels.keep.tolist() == [row[2] > 0.5 for row in rows(labels)]
    assert rows(labels.at(torch.tensor([3, 0, 3]))) == [rows(labels)[i] for i in (3, 0, 3)]
    assert rows(labels.at(slice(2, 5))) == rows(labels)[2:5]


def test_labels_of_the_whole_pool_have_weight_1_by_default() -> None:
    label = torch.tensor([2, 0, 1])
    assert rows(PseudoLabels.of_pool(label)) == [(0, 2, 1.0), (1, 0, 1.0), (2, 1, 1.0)]
    for weight in (torch.tensor([True, False, True]), torch.tensor([1.0, 0.0, 1.0])):
        labels = PseudoLabels.of_pool(label, weight)
        assert rows(labels) == [(0, 2, 1.0), (1, 0, 0.0), (2, 1, 1.0)] and labels.weight.is_floating_point()


# -------------------------------------------------------------------- predictions


def test_confidence_and_margin_equal_a_naive_loop() -> None:
    source = torch.Generator().manual_seed(2)
    probability, clean = (torch.randn(2, 50, 5, generator=source) * 2).softmax(dim=2)
    best, label = probability.argmax(dim=1), torch.randint(5, (50,), generator=source)
    predictions = Predictions(best, Table.of(probability), Table.of(clean))
    for i, row in enumerate(probability.tolist()):
        first, second = sorted(row)[-1], sorted(row)[-2]
        assert predictions.confidence[i].item() == pytest.approx(first)
        assert predictions.margin[i].item() == pytest.approx(first - second, abs=1e-7)
        assert predictions.probability_of(label)[i].item() == row[label[i]]
        assert predictions.p_clean(label)[i].item() == clean[i, label[i]].item()
    other = Predictions(label, Table.of(probability), Table.of(clean))  # with labels that are not the likeliest
    for i, row in enumerate(probability.tolist()):
        rest = max(p for c, p in enumerate(row) if c != label[i])
        assert other.margin[i].item() == pytest.approx(row[label[i]] - rest, abs=1e-7)


@pytest.mark.parametrize("part", ["index", "label", "weight"])
def test_labels_of_other_images_or_classes_are_refused(part: str) -> None:
    labels = PseudoLabels.unweighted(torch.tensor([0, 4]), torch.tensor([1, 2]))
    labels.check(5, 3)
    wrong = torch.ones(3) if part == "weight" else torch.tensor([0, 5])
    with pytest.raises(SchemaError):
        replace(labels, **{part: wrong}).check(5, 3)
