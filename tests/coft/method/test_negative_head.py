from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.method import negative_head
from coft.method.cleanliness import expected_dual_loss
from coft.method.negative_head import fit_negative

SCALE = 5.0


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


WEIGHT = torch.tensor([1.0, 0.5, 0.25, 1.0, 0.75, 0.1])


def naive_loss(features: Tensor, labels: Tensor, weight: Tensor, positive: Tensor, vectors: Tensor) -> Tensor:
    """The dual loss of each image over every other class, written out."""
    total = torch.zeros((), dtype=torch.float64)
    for f, y, w in zip(features, labels.tolist(), weight.tolist(), strict=True):
        d = [SCALE * (dot(f, p) - dot(f, n) / dot(n, n).sqrt()) for p, n in zip(positive, vectors, strict=True)]
        total = total + w * (1 + (-d[y]).exp()).log()
        for z in range(len(d)):
            if z != y:
                total = total + w * (1 + d[z].exp()).log() / (len(d) - 1)
    return total / weight.sum()


def test_fit_is_adam_on_the_dual_loss_of_a_naive_loop() -> None:
    features, labels, positive, start = problem()
    vectors = F.normalize(start.double(), dim=1).requires_grad_(True)
    adam = torch.optim.Adam([vectors], lr=negative_head.LEARNING_RATE)
    for _ in range(5):
        adam.zero_grad()
        naive_loss(features.double(), labels, WEIGHT.double(), positive.double(), vectors).backward()
        adam.step()
    fitted = fit_negative(features, labels, WEIGHT, positive * 3, start, SCALE, source(), steps=5)
    torch.testing.assert_close(fitted.double(), F.normalize(vectors.detach(), dim=1), atol=1e-5, rtol=1e-4)


def test_fit_lowers_the_dual_loss_and_leaves_its_arguments_alone() -> None:
    arguments = problem()
    features, labels, positive, start = (x.clone() for x in arguments)
    for x in arguments[:1] + arguments[2:]:
        x.requires_grad_(True)
    with torch.no_grad():
        fitted = fit(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(arguments, (features, labels, positive, start), strict=True))
    assert all(x.grad is None for x in arguments) and not fitted.requires_grad
    torch.testing.assert_close(fitted.norm(dim=1), torch.ones(3))
    before, after = (
        float(expected_dual_loss(SCALE * features @ (positive - F.normalize(v, dim=1)).t(), labels))
        for v in (start, fitted)
    )
    assert after < before - 0.05 and math.isfinite(after)


@pytest.mark.parametrize("batch", [4, 1000])
def test_many_images_are_drawn_by_the_generator_alone(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negative_head, "BATCH", batch)
    first, second = (fit(*problem(40)) for _ in range(2))
    assert torch.equal(first, second)
    other = fit(*problem(40), seed=2)
    assert torch.equal(first, other) == (batch == 1000)


def test_as_many_images_are_drawn_as_all_batches_could_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negative_head, "MOST", 5)
    assert negative_head.draw(5, source()).tolist() == [0, 1, 2, 3, 4]
    drawn = negative_head.draw(9, source()).tolist()
    assert len(set(drawn)) == 5 and set(drawn) <= set(range(9)) and drawn == negative_head.draw(9, source()).tolist()
