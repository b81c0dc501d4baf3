from __future__ import annotations

import pytest
import torch

from coft.method.losses import average_predictions, log_mean, weighted_cross_entropy


@pytest.mark.parametrize(
    "weight", [[True, False, True, True, False, False], [0.2, 0.0, 0.9, 1.0, 0.5, 0.1], [0.1, 0.0, 0.2, 0.0, 0.3, 0.1]]
)
def test_weighted_cross_entropy_equals_a_naive_loop(weight: list[float]) -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label = torch.tensor([0, 1, 2, 3, 0, 1])
    each = [-w * torch.log(torch.softmax(logits[i], 0)[label[i]]) for i, w in enumerate(weight)]
    plain = sum(each) / max(1.0, sum(weight))
    ours = weighted_cross_entropy(logits, label, torch.tensor(weight).to(logits if 0.1 in weight else torch.bool))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, plain)))


def test_weighted_cross_entropy_of_nothing_is_zero_with_finite_gradients() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = weighted_cross_entropy(logits, torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros(3, 4))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_predictions_are_averaged_as_probabilities(count: int) -> None:
    source = torch.Generator().manual_seed(count)
    logits = [torch.randn(4, 3, generator=source) * 5 for _ in range(count)]
    told = average_predictions(logits)
    assert torch.equal(told, logits[0]) == (count == 1)
    for i, row in enumerate(told.softmax(dim=1).tolist()):
        each = [x[i].exp() / x[i].exp().sum() for x in logits]
        assert row == pytest.approx((sum(each) / count).tolist(), abs=1e-6)
    if count > 1:
        named = {str(n): x.softmax(dim=1) for n, x in enumerate(logits)}
        torch.testing.assert_close(log_mean(named), told)


def test_a_mean_of_nothing_has_a_logarithm() -> None:
    certain = {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([[1.0, 0.0]])}
    assert torch.isfinite(log_mean(certain)).all()
    assert torch.isfinite(average_predictions([torch.tensor([[200.0, 0.0]])] * 2)).all()
