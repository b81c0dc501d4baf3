from __future__ import annotations

import pytest
import torch

from coft.labelling.losses import adjusted_cross_entropy, average_predictions, log_mean, weighted_cross_entropy
from coft.labelling.pseudo_labels import PseudoLabels


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


def test_adjusted_cross_entropy_equals_a_naive_loop() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = PseudoLabels(torch.tensor([9, 2, 5, 7]), torch.tensor([0, 2, 2, 1]), torch.tensor([0.5, 1.0, 0.0, 0.9]))
    counts = [1 + 0.5, 1 + 0.9, 1 + 1.0]  # each class once more than it occurs
    each = []
    for row, label, weight in zip(logits, labels.label.tolist(), labels.weight.tolist(), strict=True):
        odds = [count / sum(counts) * x.exp() for count, x in zip(counts, row, strict=True)]
        each.append(-weight * torch.log(odds[label] / sum(odds)))
    plain = sum(each) / sum(labels.weight.tolist())
    ours = adjusted_cross_entropy(logits, labels, labels.log_frequency(3))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, plain)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_predictions_are_averaged_as_probabilities(count: int) -> None:
    source = torch.Generator().manual_seed(count)
    logits = [torch.randn(4, 3, generator=source) * 5 for _ in range(count)]
    reported = average_predictions(logits)
    assert torch.equal(reported, logits[0]) == (count == 1)
    for i, row in enumerate(reported.softmax(dim=1).tolist()):
        each = [x[i].exp() / x[i].exp().sum() for x in logits]
        assert row == pytest.approx((sum(each) / count).tolist(), abs=1e-6)
    if count > 1:
        named = {str(n): x.softmax(dim=1) for n, x in enumerate(logits)}
        torch.testing.assert_close(log_mean(named), reported)


def test_a_mean_of_nothing_has_a_logarithm() -> None:
    certain = {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([[1.0, 0.0]])}
    assert torch.isfinite(log_mean(certain)).all()
    assert torch.isfinite(average_predictions([torch.tensor([[200.0, 0.0]])] * 2)).all()
