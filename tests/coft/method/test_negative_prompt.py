from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coft.method import negative_prompt
from coft.method.negative_prompt import (
    clean_log_odds,
    draw,
    draw_complement,
    dual_loss,
    expected_dual_loss,
    fit_negative,
    p_clean,
    separation,
)

SCALE = 5.0
WEIGHT = torch.tensor([1.0, 0.5, 0.25, 1.0, 0.75, 0.1])


def unit(*shape: int, seed: int) -> torch.Tensor:
    values = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (values / values.norm(dim=-1, keepdim=True)).requires_grad_(True)


def test_log_odds_equal_a_naive_loop() -> None:
    f, pos, neg = unit(5, 7, seed=0), unit(3, 7, seed=1), unit(3, 7, seed=2)
    d = clean_log_odds(f, pos, neg, 20.0)
    for i in range(5):
        for c in range(3):
            assert d[i, c].item() == pytest.approx(20 * (f[i] @ pos[c]).item() - 20 * (f[i] @ neg[c]).item(), abs=1e-12)


def test_only_the_positive_prompt_is_detached() -> None:
    f, pos, neg = unit(4, 6, seed=0), unit(3, 6, seed=1), unit(3, 6, seed=2)
    weight = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    (clean_log_odds(f, pos, neg, 10.0) * weight).sum().backward()
    assert pos.grad is None
    expected_f = torch.stack([sum(10 * weight[i, c] * (pos[c] - neg[c]) for c in range(3)) for i in range(4)])
    expected_n = torch.stack([sum(-10 * weight[i, c] * f[i] for i in range(4)) for c in range(3)])
    torch.testing.assert_close(f.grad, expected_f)
    torch.testing.assert_close(neg.grad, expected_n)


def test_dual_loss_equals_a_naive_loop() -> None:
    d = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5
    y, z = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([1, 0, 3, 2, 3, 2])

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    naive = sum(-math.log(sigmoid(d[i, y[i]].item())) - math.log(1 - sigmoid(d[i, z[i]].item())) for i in range(6)) / 6
    assert dual_loss(d, y, z).item() == pytest.approx(naive, abs=1e-12)


def test_dual_loss_falls_when_the_label_is_called_clean_and_the_complement_is_not() -> None:
    y, z = torch.tensor([0]), torch.tensor([1])
    right, wrong = torch.tensor([[4.0, -4.0]]), torch.tensor([[-4.0, 4.0]])
    assert dual_loss(right, y, z) < 0.1 < dual_loss(torch.zeros(1, 2), y, z) < dual_loss(wrong, y, z)


def test_dual_loss_survives_extreme_log_odds() -> None:
    d = torch.tensor([[-500.0, 500.0]], requires_grad=True)
    loss = dual_loss(d, torch.tensor([0]), torch.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(1000) and torch.isfinite(d.grad).all()


@given(st.integers(2, 30), st.integers(0, 100))
def test_complement_is_another_class(num_classes: int, seed: int) -> None:
    y = torch.arange(num_classes)
    z = draw_complement(y, num_classes, torch.Generator().manual_seed(seed))
    assert ((z >= 0) & (z < num_classes) & (z != y)).all()


def test_complement_is_uniform_over_the_other_classes() -> None:
    z = draw_complement(torch.full((30_000,), 2), 5, torch.Generator().manual_seed(0))
    share = torch.bincount(z, minlength=5) / 30_000
    torch.testing.assert_close(share, torch.tensor([0.25, 0.25, 0.0, 0.25, 0.25]), atol=0.01, rtol=0)


def test_expected_dual_loss_is_the_mean_over_all_complements_with_gradients() -> None:
    d = (torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3).requires_grad_(True)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    plain = sum(dual_loss(d, y, (y + shift) % 4) for shift in (1, 2, 3)) / 3
    ours = expected_dual_loss(d, y)
    torch.testing.assert_close(ours, plain)
    for a, b in zip(torch.autograd.grad(ours, d), torch.autograd.grad(plain, d), strict=True):
        torch.testing.assert_close(a, b)
    w = torch.tensor([1.0, 0.5, 0.0, 0.25, 1.0, 0.1], dtype=torch.float64)
    pairs = [(i, (int(y[i]) + shift) % 4) for i in range(6) for shift in (1, 2, 3)]
    each = [w[i] * (F.softplus(-d[i, y[i]]) + F.softplus(d[i, z])) / 3 for i, z in pairs]
    plain, ours = sum(each) / w.sum(), expected_dual_loss(d, y, w)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad(loss, d)[0] for loss in (ours, plain)))


@pytest.mark.parametrize(("q", "num_classes"), [(0.02, 100), (0.3, 10), (0.5, 2), (0.5, 47), (0.9, 1000)])
def test_the_dual_loss_is_least_at_the_odds_of_the_probability_that_the_label_is_right(
    q: float, num_classes: int
) -> None:
    """Minimise the expected loss of one x numerically: d = logit(q) + log(C - 1), which the coupled rule builds on."""
    # y right with probability q; else the right class is any of the others. The label in use is class 0, and z hits the
    # class whose log-odds we fit with the frequency that each role has in training.
    as_label, as_complement = q, (1 - q) / (num_classes - 1)
    d = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([d], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logsigmoid = torch.nn.functional.logsigmoid
        loss = -(as_label * logsigmoid(d) + as_complement * logsigmoid(-d)) * num_classes
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float(d.detach()) == pytest.approx(math.log(q / (1 - q)) + math.log(num_classes - 1), abs=1e-3)


def test_coupled_rule_is_the_chance_of_each_label_if_exactly_one_is_right() -> None:
    """Enumerate which of C independent labels are right, and count those worlds where one is."""
    d = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    q = torch.sigmoid(d - math.log(3))  # what d says of each label alone, see above
    for clean, chance in zip(p_clean(d, "coupled"), q.tolist(), strict=True):
        worlds = [math.prod(chance[c] if c == right else 1 - chance[c] for c in range(4)) for right in range(4)]
        assert clean.tolist() == pytest.approx([world / sum(worlds) for world in worlds], abs=1e-12)


def test_raw_rule_is_a_sigmoid_of_each_label_alone() -> None:
    d = torch.linspace(-3, 3, 14).view(7, 2)
    for row, clean in zip(d.tolist(), p_clean(d, "raw").tolist(), strict=True):
        assert clean == pytest.approx([1 / (1 + math.exp(-x)) for x in row], abs=1e-6)


def test_separation_equals_counted_pairs() -> None:
    d = torch.tensor([[3.0, 1.0, 0.2], [0.5, 0.2, 3.0]])
    y = torch.tensor([0, 1])
    at_label = [3.0, 0.2]
    others = [1.0, 0.2, 0.5, 3.0]
    wins = sum((a > b) + 0.5 * (a == b) for a in at_label for b in others)
    assert separation(d, y) == pytest.approx(wins / 8)
    for seed in range(5):
        source = torch.Generator().manual_seed(seed)
        d = torch.randn(7, 4, generator=source).round(decimals=1)
        y = torch.randint(4, (7,), generator=source)
        pairs = [(float(d[i, y[i]]), float(d[j, c])) for i in range(7) for j in range(7) for c in range(4) if c != y[j]]
        assert separation(d, y) == pytest.approx(sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs))


# -------------------------------------------------------------------- fitted to what is known


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
    adam = torch.optim.Adam([vectors], lr=negative_prompt.FIT_RATE)
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
    monkeypatch.setattr(negative_prompt, "FIT_BATCH", batch)
    first, second = (fit(*problem(40)) for _ in range(2))
    assert torch.equal(first, second)
    other = fit(*problem(40), seed=2)
    assert torch.equal(first, other) == (batch == 1000)


def test_as_many_images_are_drawn_as_all_batches_could_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negative_prompt, "FIT_IMAGES", 5)
    assert draw(5, source()).tolist() == [0, 1, 2, 3, 4]
    drawn = draw(9, source()).tolist()
    assert len(set(drawn)) == 5 and set(drawn) <= set(range(9)) and drawn == draw(9, source()).tolist()
    assert draw(9, source(), 9).tolist() == list(range(9)) and len(draw(9, source(), 2)) == 2
