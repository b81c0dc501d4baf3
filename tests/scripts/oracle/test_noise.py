"""Labels that are wrong in a known way, and CoFT that is given them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.method.filters import none
from scripts.oracle.noise import NOISES, noisy_labels
from tests.coft.toys import CLASSES, PARTNER, ToyImages, begun

from .making import make_oracle

MANY = 5


@pytest.fixture(scope="module")
def pool() -> tuple[Tensor, Tensor, Tensor]:
    """Labels, features and texts of a pool whose classes are of unequal size."""
    source = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(MANY, 8, generator=source), dim=1)
    truth = torch.randint(MANY, (120,), generator=source).clamp_max(MANY - 1)
    return truth, text[truth] + torch.randn(120, 8, generator=source), text


def alike(truth: Tensor, features: Tensor, text: Tensor) -> list[list[float]]:
    """How much the images of each class are like each text, by a naive loop; less what all classes are."""
    means = [
        [sum(float(f @ text[k]) for f in features[truth == c]) / int((truth == c).sum()) for k in range(MANY)]
        for c in range(MANY)
    ]
    return [[means[c][k] - sum(row[k] for row in means) / MANY for k in range(MANY)] for c in range(MANY)]


def most_alike(truth: Tensor, features: Tensor, text: Tensor) -> list[int]:
    table = alike(truth, features, text)
    return [max((k for k in range(MANY) if k != c), key=lambda k: table[c][k]) for c in range(MANY)]


@pytest.mark.parametrize("noise", NOISES[1:-1])
def test_of_each_class_two_of_c_are_wrong(pool: tuple[Tensor, Tensor, Tensor], noise: str) -> None:
    truth, features, text = pool
    label = noisy_labels(truth, noise, features, text, seed=1)
    for c in range(MANY):
        members = truth == c
        assert int((label[members] != c).sum()) == round(2 / MANY * int(members.sum()))
    assert torch.equal(label, noisy_labels(truth, noise, features, text, seed=1))
    assert not torch.equal(label, noisy_labels(truth, noise, features, text, seed=2))


def test_confusable_labels_are_wrong_where_uniform_ones_are_but_alike(pool: tuple[Tensor, Tensor, Tensor]) -> None:
    truth = pool[0]
    uniform, confusable = (noisy_labels(truth, noise, *pool[1:], seed=1) for noise in ("uniform", "confusable"))
    wrong = uniform != truth
    assert torch.equal(wrong, confusable != truth)
    wanted = torch.tensor(most_alike(*pool))
    assert torch.equal(confusable[wrong], wanted[truth[wrong]])
    assert len({(int(c), int(k)) for c, k in zip(truth[wrong], uniform[wrong], strict=True)}) > 2 * MANY


def test_a_cluster_is_the_images_that_are_nearest_to_one_of_them(pool: tuple[Tensor, Tensor, Tensor]) -> None:
    truth, features, text = pool
    label, unit = noisy_labels(truth, "cluster", features, text, seed=1), F.normalize(features, dim=1)
    wanted = most_alike(*pool)
    for c in range(MANY):
        members = torch.nonzero(truth == c).flatten().tolist()
        wrong = {i for i in members if int(label[i]) != c}
        assert {int(label[i]) for i in wrong} == {wanted[c]}
        clusters = [set(sorted(members, key=lambda i: -float(unit[i] @ unit[j]))[: len(wrong)]) for j in members]
        assert wrong in clusters


def test_the_two_classes_that_are_most_alike_swap_their_names(pool: tuple[Tensor, Tensor, Tensor]) -> None:
    truth, features, text = pool
    label = noisy_labels(truth, "swapped", features, text, seed=1)
    table = alike(*pool)
    first, second = max(((c, k) for c in range(MANY) for k in range(MANY) if c != k), key=lambda p: table[p[0]][p[1]])
    swap = {first: second, second: first}
    assert label.tolist() == [swap.get(int(c), int(c)) for c in truth]


def test_phase_two_is_given_these_labels_and_weighs_them() -> None:
    truth = ToyImages().truth
    method = make_oracle(truth, noise="confusable")
    begun(method, 2)
    noisy = method.noisy
    assert 0 < int((noisy != truth).sum()) < len(truth) and CLASSES > 2
    predictions, labels, _ = method.observer.labels[-1]
    for name, partner in PARTNER.items():
        assert torch.equal(predictions[partner].label, noisy) and torch.equal(labels[name].label, noisy)
        low = torch.minimum(*(predictions[who].p_clean(noisy) for who in (name, partner)))
        assert bool((labels[name].weight >= low).all()) and 0 < float(labels[name].weight.min()) < 1
    unfiltered = make_oracle(truth, parts={"filter": none}, noise="confusable")
    begun(unfiltered, 2)
    assert all(bool((given.weight == 1).all()) for given in unfiltered.observer.labels[-1][1].values())
