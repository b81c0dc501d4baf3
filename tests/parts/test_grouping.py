from __future__ import annotations

import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor
from torch.distributions import MultivariateNormal

from trainers.parts.grouping import class_gaussians, fit_groups, mean_margin


def clusters(per_class: int, dim: int = 6, classes: int = 3, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Features about means of classes that are far from each other, and the classes."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = torch.randn(len(labels), dim, generator=source, dtype=torch.float64)
    return torch.eye(classes, dim, dtype=torch.float64)[labels] + spread * noise, labels


def doubtful_scores(labels: Tensor, classes: int, right: float) -> Tensor:
    """Scores of a classifier that is right so often, and no surer where it is."""
    source = torch.Generator().manual_seed(1)
    wrong = (labels + torch.randint(1, classes, labels.shape, generator=source)) % classes
    told = torch.where(torch.rand(len(labels), generator=source) < right, labels, wrong)
    return 2.0 * torch.nn.functional.one_hot(told, classes) + 0.1 * torch.randn(len(labels), classes, generator=source)


def naive_gaussians(features: Tensor, posterior: Tensor) -> tuple[list[Tensor], Tensor]:
    """Means with one image more at 0, and the covariance of what is left of each image."""
    count, classes = posterior.shape
    means = []
    for c in range(classes):
        total = sum((posterior[i, c] * features[i] for i in range(count)), torch.zeros(features.shape[1]))
        means.append(total / (float(posterior[:, c].sum()) + 1))
    left = torch.stack([features[i] - means[int(posterior[i].argmax())] for i in range(count)])
    return means, torch.from_numpy(ledoit_wolf(left.numpy(), assume_centered=True)[0])


def test_scores_are_log_densities_but_for_what_classes_share() -> None:
    features, _ = clusters(20)
    features -= features.mean(dim=0)
    posterior = torch.rand(60, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    posterior /= posterior.sum(dim=1, keepdim=True)
    means, covariance = naive_gaussians(features, posterior)
    scores = class_gaussians(features, posterior).scores(features)
    expected = torch.stack([MultivariateNormal(mean, covariance).log_prob(features) for mean in means], dim=1)
    torch.testing.assert_close(scores - scores[:, :1], expected - expected[:, :1])


def test_groups_are_those_of_a_loop_over_images_and_rounds() -> None:
    features, labels = clusters(10)
    scores = doubtful_scores(labels, 3, 0.7).double()
    centred = features - features.mean(dim=0)

    def margin(rows: Tensor) -> float:
        return sum(float(row.sort().values[-1] - row.sort().values[-2]) for row in rows) / len(rows)

    posterior = scores.softmax(dim=1)
    for _ in range(3):
        means, covariance = naive_gaussians(centred, posterior)
        densities = torch.stack([MultivariateNormal(mean, covariance).log_prob(centred) for mean in means], dim=1)
        told = densities * margin(scores) / margin(densities)
        posterior = torch.stack([(s + t).softmax(dim=0) for s, t in zip(scores, told, strict=True)])
    found = fit_groups(features, scores, rounds=3).scores(features.float())
    expected = (told - told[:, :1]).float()
    torch.testing.assert_close(found - found[:, :1], expected, rtol=1e-4, atol=1e-4)


def test_groups_mend_labels_and_keep_their_names() -> None:
    features, labels = clusters(60)
    scores = doubtful_scores(labels, 3, 0.6)
    told = fit_groups(features, scores).scores(features.float())
    before, together, alone = (float((s.argmax(dim=1) == labels).float().mean()) for s in (scores, scores + told, told))
    assert before < 0.7 and together > before + 0.1 and alone > 0.95


def test_groups_speak_as_loud_as_the_scores() -> None:
    features, labels = clusters(30, dim=20)
    for loudness in (0.1, 1.0, 30.0):
        scores = loudness * doubtful_scores(labels, 3, 0.8)
        told = fit_groups(features, scores).scores(features.float())
        torch.testing.assert_close(mean_margin(told), mean_margin(scores), rtol=1e-3, atol=1e-4)


def test_where_features_lie_makes_no_difference() -> None:
    features, labels = clusters(30)
    scores = doubtful_scores(labels, 3, 0.8)
    here, there = (fit_groups(f, scores).scores(f.float()) for f in (features, features + 5))
    torch.testing.assert_close(here - here[:, :1], there - there[:, :1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", ["a class without images", "one image of each", "features all the same"])
def test_numbers_stay_finite(case: str) -> None:
    features, labels = clusters(1 if case == "one image of each" else 20)
    scores = doubtful_scores(labels, 3, 1.0)
    if case == "a class without images":
        scores[:, 1] = -1e4
    if case == "features all the same":
        features[:] = 1.0
    told = fit_groups(features, scores).scores(features.float())
    assert told.isfinite().all()
    if case == "a class without images":
        assert not ((scores + told).argmax(dim=1) == 1).any()
