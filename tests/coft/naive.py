"""Naive loops of CoFT's rules: priors, quotas, seeds, mixtures, temperatures and propagation among neighbours."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.labelling import neighbours


def softmax(row: list[float]) -> list[float]:
    return [math.exp(x) / sum(map(math.exp, row)) for x in row]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def without_prior(logits: Tensor, tau: float = 0.5) -> Tensor:
    """Logits with corrected prior."""
    return logits - tau * logits.softmax(dim=1).mean(dim=0).log()


def view_features(method: Any, encode: Any, num_views: int) -> Tensor:
    """Features of all images, averaged over the views of labels. Shape (N, embed_dim)."""
    images, seed = method.engine.images, method.engine.seed
    rows = []
    with torch.no_grad():
        for i in range(len(images)):
            views = images.views(i, num_views, (seed, "labels", 0))
            rows.append(torch.stack([encode(view[None])[0] for view in views]).mean(dim=0))
    return torch.stack(rows)


def clip_features(method: Any) -> Tensor:
    """Features of all images under the frozen CLIP. Shape (N, embed_dim)."""
    visual = method.engine.clip.visual
    return view_features(method, lambda x: F.normalize(visual(x), dim=-1), method.settings.label_views)


def zero_shot_logits(method: Any) -> Tensor:
    """Zero-shot logits of the test views of all images. Shape (N, C)."""
    clip = method.engine.clip
    return clip.scale * F.normalize(clip.visual(method.engine.images.pixels), dim=-1) @ clip.zero_shot_text().t()


def zero_shot(method: Any) -> Tensor:
    """Zero-shot log-probabilities of all images, averaged over views, with corrected prior. Shape (N, C)."""
    logits = method.engine.clip.scale * clip_features(method) @ method.zero_shot_text().t()
    return without_prior(logits.double(), method.settings.prior_tau).log_softmax(dim=1)


def teacher_features(method: Any) -> dict[str, Tensor]:
    """Features of all images under each peer's teacher. Shape (N, embed_dim) each."""
    views = method.settings.label_views
    return {name: view_features(method, model.features, views) for name, model in method.teachers().items()}


def teacher_scores(method: Any) -> dict[str, list[Tensor]]:
    """Logits and clean log-odds of all images under each peer's teacher, with corrected prior. Shape (N, C) each."""
    scores, features_of = {}, teacher_features(method)
    for name, model in method.teachers().items():
        features = features_of[name]
        with torch.no_grad():
            scores[name] = [without_prior(x.double(), method.settings.prior_tau) for x in model.classify(features)]
    return scores


def quotas(logits: Tensor, most: int, share: float = 0.5) -> list[int]:
    """Per class, a share of the images that are predicted as the class, rounded up, and `most` at most."""
    likeliest = [row.index(max(row)) for row in logits.tolist()]
    return [min(most, math.ceil(share * likeliest.count(c))) for c in range(logits.shape[1])]


def surest(logits: Tensor, most: list[int]) -> list[list[int]]:
    """Per class, the images with the highest odds; a class with too few takes images that rank it second."""
    ranking, p = logits.argsort(dim=1, descending=True).tolist(), logits.softmax(dim=1)
    odds = (p / (1 - p)).tolist()

    def best(rank: int, c: int, without: set[int]) -> list[int]:
        members = [i for i, row in enumerate(ranking) if row[rank] == c and i not in without]
        return sorted(members, key=lambda i: -odds[i][c])

    chosen = [best(0, c, set())[: most[c]] for c in range(len(most))]
    taken = {i for members in chosen for i in members}
    return [members + best(1, c, taken)[: most[c] - len(members)] for c, members in enumerate(chosen)]


def mixture(features: Tensor, scores: Tensor, index: list[int] | None = None) -> Tensor:
    """Posterior of all images under a mixture of Gaussians. Shape (N, C)."""
    x, (count, classes) = features.double().tolist(), scores.shape
    index, dimensions = index or list(range(count)), range(features.shape[1])
    prior = posterior = scores.double().softmax(dim=1)
    for _ in range(10):
        z = posterior.tolist()
        centres = []
        for c in range(classes):
            total = [sum(z[i][c] * x[i][d] for i in index) for d in dimensions]
            centres.append([value / math.hypot(*total) for value in total])
        variance = [
            sum(z[i][c] * (x[i][d] - centres[c][d]) ** 2 for i in index for c in range(classes)) / len(index)
            for d in dimensions
        ]
        gauss = [
            [-sum((row[d] - centre[d]) ** 2 / variance[d] for d in dimensions) / 2 for centre in centres] for row in x
        ]
        g = torch.tensor(gauss, dtype=torch.float64)
        posterior = (scores.double() + g / temperature(g[index], prior[index])).softmax(dim=1)
    return posterior


def temperature(g: Tensor, prior: Tensor) -> float:
    """The T that minimises the cross-entropy between the prior and softmax(g / T), by ternary search."""

    def cost(power: float) -> float:
        log_q = (g / math.exp(power)).log_softmax(dim=1)
        return -float((prior * log_q).sum())

    low, high = -3.0, 9.0
    for _ in range(80):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, second) if cost(first) < cost(second) else (first, high)
    return math.exp(low)


def calibrated(method: Any, scores: Tensor, labels: list[int]) -> Tensor:
    """Scores of all images, divided by their temperature. Shape (N, C)."""
    return scores / temperature_of(method, scores, list(range(len(scores))), labels)


def temperature_of(method: Any, scores: Tensor, index: list[int], labels: list[int]) -> float:
    """Temperature of the scores of some images; the target averages the belief and the labels of these images."""
    target, belief = [], method.belief
    n = method.num_images / method.num_classes
    for with_gaussians, without in zip(belief.scores.all().tolist(), belief.spread.all().tolist(), strict=True):
        a, b = softmax(with_gaussians), softmax(without)
        row = [math.exp((n * math.log(p) + 5 * math.log(q)) / (n + 5)) for p, q in zip(a, b, strict=True)]
        target.append([p / sum(row) for p in row])
    chosen = [[(p + (c == y)) / 2 for c, p in enumerate(target[i])] for i, y in zip(index, labels, strict=True)]
    return temperature(scores.double(), torch.tensor(chosen, dtype=torch.float64))


def dual_loss(d: list[float], label: int) -> float:
    """Dual loss of an image: the mean over all classes other than the label."""
    others = [math.log(1 - sigmoid(x)) for c, x in enumerate(d) if c != label]
    return -math.log(sigmoid(d[label])) - sum(others) / len(others)


def p_clean(d: list[float], label: int, rule: str) -> float:
    """p_clean of a label from the clean log-odds of an image."""
    return softmax(d)[label] if rule == "softmax" else sigmoid(d[label])


def edges(features: Tensor, count: int) -> Tensor:
    """Normalised edges between images and their nearest neighbours. Shape (N, N), fp64."""
    x = features - features.mean(dim=0)
    x = (x / x.norm(dim=1, keepdim=True)).double()
    size = len(x)
    adjacency = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        others = sorted((j for j in range(size) if j != i), key=lambda j: -float(x[i] @ x[j]))
        for j in others[:count]:
            weight = max(0.0, float(x[i] @ x[j])) ** neighbours.COSINE_POWER
            adjacency[i, j] += weight
            adjacency[j, i] += weight
    root = [math.sqrt(max(float(degree), 1e-12)) for degree in adjacency.sum(dim=1)]
    return torch.stack([adjacency[i] / (root[i] * torch.tensor(root, dtype=torch.float64)) for i in range(size)])


def smooth(features: Tensor, count: int, values: Tensor) -> Tensor:
    """Fixed point of label propagation, divided by that of ones. Shape (N, C), fp64."""
    start = torch.cat([values.double(), torch.ones(len(values), 1, dtype=torch.float64)], dim=1)
    share = neighbours.ALPHA
    solved = torch.linalg.solve(torch.eye(len(start), dtype=torch.float64) - share * edges(features, count), start)
    return (1 - share) * solved[:, :-1] / ((1 - share) * solved[:, -1:])
