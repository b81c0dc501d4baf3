"""Temperatures of scores against naive loops."""

from __future__ import annotations

import pytest
import torch

from coft.core.table import Table
from coft.labelling import calibration
from coft.labelling.calibration import Belief, Calibration, evenly_spaced, fit_temperature
from tests.coft import naive


def test_the_temperature_minimises_the_cross_entropy() -> None:
    source = torch.Generator().manual_seed(0)
    g, noise = 40 * torch.randn(200, 3, generator=source), torch.randn(200, 3, generator=source)
    prior = (g / 20 + 0.1 * noise).double().softmax(dim=1)
    assert fit_temperature(g.double(), prior) == pytest.approx(naive.temperature(g.double(), prior), rel=1e-4)
    assert fit_temperature(g.double(), prior) == pytest.approx(20, rel=0.1)
    assert fit_temperature(g.double(), noise.double().softmax(dim=1)) > 200  # scores without information on the classes


def random_scores(seed: int, count: int = 60, classes: int = 4) -> torch.Tensor:
    return 3 * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)).double()


def belief_of(scores: torch.Tensor) -> Belief:
    """A belief that Gaussians do not change."""
    return Belief(Table.of(scores), Table.of(scores))


def test_the_target_averages_belief_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    belief, scores = belief_of(random_scores(0)), 10 * random_scores(1)
    label = torch.randint(4, (60,), generator=torch.Generator().manual_seed(2))
    rows = zip(random_scores(0).softmax(dim=1), label.tolist(), strict=True)
    target = torch.stack([(p + torch.tensor([float(c == y) for c in range(4)])) / 2 for p, y in rows])
    pool = Calibration.of_pool(belief, label)
    assert pool.temperature_of(Table.of(scores)) == pytest.approx(naive.temperature(scores, target), rel=1e-4)
    index = torch.tensor([50, 3, 17])
    some = Calibration(belief, index, label[index])
    assert some.temperature(scores[index]) == pytest.approx(naive.temperature(scores[index], target[index]), rel=1e-4)
    assert some.temperature_of(Table.of(scores)) == some.temperature(scores[index])
    monkeypatch.setattr(calibration, "SAMPLE", 20)  # every third
    assert evenly_spaced(60).tolist() == list(range(0, 60, 3)) and evenly_spaced(61).tolist() == list(range(0, 61, 4))
    every_third = Calibration.of_pool(belief, label).temperature_of(Table.of(scores))
    assert every_third == pytest.approx(naive.temperature(scores[::3], target[::3]), rel=1e-4)


@pytest.mark.parametrize(("count", "share"), [(20, 0.5), (60, 0.75)])  # of four classes
def test_the_mixture_has_less_weight_with_few_images(count: int, share: float) -> None:
    scores, spread = random_scores(0, count), random_scores(1, count)
    probabilities = Belief(Table.of(scores), Table.of(spread)).probabilities(torch.tensor([2, 0]))
    for row, image in zip(probabilities, (2, 0), strict=True):
        product = scores[image].softmax(0) ** share * spread[image].softmax(0) ** (1 - share)
        torch.testing.assert_close(row, product / product.sum())
    same = belief_of(scores).probabilities(torch.arange(3))
    torch.testing.assert_close(same, scores[:3].softmax(dim=1))


def test_the_temperature_is_proportional_to_the_scale_of_scores() -> None:
    scores = random_scores(0) + random_scores(1) / 3
    pool = Calibration.of_pool(belief_of(random_scores(0)), random_scores(0).argmax(dim=1))
    assert pool.temperature(7 * scores) == pytest.approx(7 * pool.temperature(scores), rel=1e-4)
