"""The dual loss and the fit of negative vectors against naive loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.method import negative_prompt
from coft.method.negative_prompt import draw, dual_loss, fit_negative
from tests.coft import naive
from tests.coft.naive import sigmoid

SCALE = 5.0
WEIGHT = torch.tensor([1.0, 0.5, 0.25, 1.0, 0.75, 0.1])


def test_dual_loss_equals_a_naive_loop() -> None:
    d = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    expected = [naive.dual_loss(row, label) for row, label in zip(d.tolist(), y.tolist(), strict=True)]
    assert dual_loss(d, y).tolist() == pytest.approx(expected, abs=1e-12)


def test_dual_loss_is_finite_for_extreme_log_odds() -> None:
    d = torch.tensor([[-500.0, 500.0]], requires_grad=True)
    loss = dual_loss(d, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(1000) and torch.isfinite(d.grad).all()


def test_gradients_of_the_dual_loss() -> None:
    """That of d_y is sigmoid(d_y) - 1, that of another d_z is sigmoid(d_z) / (C - 1)."""
    d = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    dual_loss(d, y).sum().backward()
    for row, gradient, label in zip(d.tolist(), d.grad.tolist(), y.tolist(), strict=True):
        expected = [sigmoid(x) - 1 if c == label else sigmoid(x) / 3 for c, x in enumerate(row)]
        assert gradient == pytest.approx(expected, abs=1e-12)


# -------------------------------------------------------------------- fit


def problem(count: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    vectors = [torch.randn(n, 4, generator=source) for n in (count, 3, 3)]
    labels = torch.randint(3, (count,), generator=source)
    return F.normalize(vectors[0], dim=1), labels, F.normalize(vectors[1], dim=1), vectors[2]


def source() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def fit(features: Tensor, labels: Tensor, positive: Tensor, start: Tensor, seed: int = 1) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    return fit_negative(features, labels, torch.ones(len(labels)), positive, start, SCALE, chance, steps=50)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return sum((x * y for x, y in zip(a, b, strict=True)), torch.zeros((), dtype=torch.float64))


def naive_loss(features: Tensor, labels: Tensor, weight: Tensor, positive: Tensor, vectors: Tensor) -> Tensor:
    """The expected dual loss, written out."""
    total = torch.zeros((), dtype=torch.float64)
    for f, y, w in zip(features, labels.tolist(), weight.tolist(), strict=True):
        d = [SCALE * (dot(f, p) - dot(f, n) / dot(n, n).sqrt()) for p, n in zip(positive, vectors, strict=True)]
        total = total + w * (1 + (-d[y]).exp()).log()
        for z in range(len(d)):
            if z != y:
                total = total + w * (1 + d[z].exp()).log() / (len(d) - 1)
    return total / weight.sum()


def test_the_fit_is_adam_on_the_naive_loss() -> None:
    features, labels, positive, start = problem()
    vectors = F.normalize(start.double(), dim=1).requires_grad_(True)
    adam = torch.optim.Adam([vectors], lr=negative_prompt.FIT_RATE)
    for _ in range(5):
        adam.zero_grad()
        naive_loss(features.double(), labels, WEIGHT.double(), positive.double(), vectors).backward()
        adam.step()
    fitted = fit_negative(features, labels, WEIGHT, positive * 3, start, SCALE, source(), steps=5)
    torch.testing.assert_close(fitted.double(), F.normalize(vectors.detach(), dim=1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch", [4, 1000])
def test_batches_of_a_fit_depend_on_the_generator_only(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negative_prompt, "FIT_BATCH", batch)
    first, second = (fit(*problem(40)) for _ in range(2))
    assert torch.equal(first, second)
    other = fit(*problem(40), seed=2)
    assert torch.equal(first, other) == (batch == 1000)


def test_weights_of_zero_change_nothing() -> None:
    features, labels, positive, start = problem()
    fitted = fit_negative(features, labels, torch.zeros(len(labels)), positive, start, SCALE, source(), steps=5)
    torch.testing.assert_close(fitted, F.normalize(start, dim=1))


def test_a_fit_draws_at_most_fit_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negative_prompt, "FIT_IMAGES", 5)
    assert draw(5, source()).tolist() == [0, 1, 2, 3, 4]
    drawn = draw(9, source()).tolist()
    assert len(set(drawn)) == 5 and set(drawn) <= set(range(9)) and drawn == draw(9, source()).tolist()
    assert draw(9, source(), 9).tolist() == list(range(9)) and len(draw(9, source(), 2)) == 2
