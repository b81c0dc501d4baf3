from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from coft.method.cleanliness import (
    DUAL_LOSSES,
    clean_log_odds,
    draw_complement,
    dual_loss,
    expected_dual_loss,
    p_clean,
    separation,
)


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


def test_both_dual_losses_go_by_their_names() -> None:
    d, y = torch.randn(6, 4, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 2, 3, 0, 1])
    z = draw_complement(y, 4, torch.Generator().manual_seed(7))
    assert torch.equal(DUAL_LOSSES["drawn"](d, y, torch.Generator().manual_seed(7)), dual_loss(d, y, z))
    assert torch.equal(DUAL_LOSSES["all"](d, y, torch.Generator().manual_seed(7)), expected_dual_loss(d, y))


@pytest.mark.parametrize(("q", "num_classes"), [(0.02, 100), (0.3, 10), (0.5, 2), (0.5, 47), (0.9, 1000)])
def test_calibrated_rule_recovers_the_probability_that_the_label_is_right(q: float, num_classes: int) -> None:
    """Minimise the expected loss of one x numerically; the estimate at its optimum must be q."""
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
    clean = p_clean(d.detach().expand(1, num_classes), "calibrated")[0, 0].item()
    assert clean == pytest.approx(q, abs=1e-4)
    assert (clean > 0.5) == (q > 0.5) or q == 0.5


def test_coupled_rule_is_the_chance_of_each_label_if_exactly_one_is_right() -> None:
    """Enumerate which of C independent labels are right, and count those worlds where one is."""
    d = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    for row, clean, q in zip(d, p_clean(d, "coupled"), p_clean(d, "calibrated"), strict=True):
        worlds = [math.prod(q[c].item() if c == right else 1 - q[c].item() for c in range(4)) for right in range(4)]
        for c in range(4):
            assert clean[c].item() == pytest.approx(worlds[c] / sum(worlds), abs=1e-12), row


def test_open_rule_is_the_chance_of_each_label_if_at_most_one_is_right() -> None:
    d = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2
    for clean, q in zip(p_clean(d, "open"), p_clean(d, "calibrated"), strict=True):
        worlds = [math.prod(q[c].item() if c == right else 1 - q[c].item() for c in range(4)) for right in range(5)]
        for c in range(4):
            assert clean[c].item() == pytest.approx(worlds[c] / sum(worlds), abs=1e-12)


def test_raw_rule_is_sigmoid_and_calibrated_is_it_at_two_classes() -> None:
    d = torch.linspace(-3, 3, 14).view(7, 2)
    torch.testing.assert_close(p_clean(d, "raw"), torch.sigmoid(d))
    torch.testing.assert_close(p_clean(d, "calibrated"), p_clean(d, "raw"))


def test_separation_equals_counted_pairs() -> None:
    d = torch.tensor([[3.0, 1.0, 0.2], [0.5, 0.2, 3.0]])
    y = torch.tensor([0, 1])
    at_label = [3.0, 0.2]
    others = [1.0, 0.2, 0.5, 3.0]
    wins = sum((a > b) + 0.5 * (a == b) for a in at_label for b in others)
    assert separation(d, y) == pytest.approx(wins / 8)
