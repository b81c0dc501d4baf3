"""Training-free adaptation: zero-shot logits, corrected by features of the unlabeled images, without gradient steps.

Rules are fitted to the unlabeled images, and then classify each test image independently.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core import settings as declared
from coft.core.table import Table
from coft.labelling.first_labels import zero_shot_logits
from coft.labelling.neighbours import ANCHORS, Anchors, NeighbourGraph, evenly_spaced, nearest, neighbour_count, read
from coft.labelling.prior import prior_offset
from coft.labelling.protocol import Engine, Method

from .coft_labels import COFT_DEFAULTS

ROUNDS, SPREADS = 10, 5  # TransCLIP: fits of the Gaussians, and updates of z after each fit
NEAR, FIRST, TEMPERATURE = 3, 8, 50.0  # TransCLIP: neighbours, images of a first centre, divisor of log-likelihoods
SWEEPS = 100  # iterations of Sinkhorn's algorithm


class Rule(nn.Module):
    """Base class of rules that are fitted to features and zero-shot logits of all unlabeled images.

    Args:
        images: Number of unlabeled images, N.
        width: Dimension of features, k.
        classes: Number of classes, C.
    """

    def __init__(self, images: int, width: int, classes: int) -> None:
        super().__init__()

    def keep(self, **tables: Tensor) -> None:
        """Register buffers, with the shapes that they have in a checkpoint, before their values are fitted."""
        for name, table in tables.items():
            self.register_buffer(name, table)

    def fit(self, features: Table, logits: Table) -> None:
        """Fit the rule to features of shape (N, k) and logits of shape (N, C)."""

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Compute scores of images from features of unit length and zero-shot logits. Shape (n, C)."""
        raise NotImplementedError


class Prior(Rule):
    """Zero-shot logits with CoFT's prior correction."""

    offset: Tensor

    def __init__(self, images: int, width: int, classes: int) -> None:
        super().__init__(images, width, classes)
        self.keep(offset=torch.zeros(classes))

    def fit(self, features: Table, logits: Table) -> None:
        """Compute the offset of each class."""
        self.offset.copy_(prior_offset(logits, COFT_DEFAULTS.prior_tau))

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Subtract the offsets from the logits."""
        return logits - self.offset


class Transport(Prior):
    """Optimal transport to equally frequent classes, as in OTTER (NeurIPS 2024), by Sinkhorn's algorithm.

    The offsets of the classes are the dual variables. With them, the mean probability of each class is 1 / C.
    """

    def fit(self, features: Table, logits: Table) -> None:
        """Compute the offsets that balance the classes."""
        offset = self.offset.double()
        for _ in range(SWEEPS):
            mean = logits.map(lambda rows, x=offset: (rows.double() - x).softmax(dim=1)).mean()
            offset = offset + mean.clamp_min(1e-12).log() + math.log(len(mean))
        self.offset.copy_(offset)


class Propagation(Rule):
    """Label propagation over nearest neighbours, after ZLaP (CVPR 2024); see `coft.labelling.neighbours`."""

    offset: Tensor
    mean: Tensor
    anchors: Tensor
    spread: Tensor

    def __init__(self, images: int, width: int, classes: int) -> None:
        super().__init__(images, width, classes)
        self.count = neighbour_count(images, classes)
        size = min(images, ANCHORS)
        self.keep(offset=torch.zeros(classes), mean=torch.zeros(width), anchors=torch.zeros(size, width))
        self.keep(spread=torch.zeros(size, classes, dtype=torch.float64))

    def fit(self, features: Table, logits: Table) -> None:
        """Spread the prior-corrected probabilities of all images over the neighbour graph."""
        self.offset.copy_(prior_offset(logits, COFT_DEFAULTS.prior_tau))
        graph = NeighbourGraph(features, self.count)
        self.mean.copy_(graph.anchors.mean)
        self.anchors.copy_(graph.anchors.features)
        self.spread.copy_(graph.smooth_anchors((logits.at(graph.index) - self.offset).softmax(dim=1)))

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Compute log-probabilities from the neighbours' spread values and the image's own."""
        anchors = Anchors(self.mean, self.anchors, min(self.count, len(self.anchors)))
        values = read(self.spread, *anchors.shares(features), (logits - self.offset).softmax(dim=1))
        return values.clamp_min(1e-30).log().to(logits.dtype)


class TransClip(Rule):
    """TransCLIP (Zanella, Gérin and Ben Ayed, NeurIPS 2024): a Gaussian mixture guided by text and neighbours.

    All classes share one variance per dimension. The class probabilities z of an image are proportional to
    p_text * exp(log p_gauss / 50 + (W z + W' z) / 6), where W has the cosines of each image's three nearest. The first
    centre of a class is the mean of its eight likeliest images, weighted by probability. Unlike in the published
    method, test images are not part of the fit: for a test image, W z / 3 replaces the sum of both directions. And at
    most 20,000 images are, evenly spaced, since time grows with their square.
    """

    centres: Tensor
    variance: Tensor
    anchors: Tensor
    assigned: Tensor

    def __init__(self, images: int, width: int, classes: int) -> None:
        super().__init__(images, width, classes)
        self.keep(centres=torch.zeros(classes, width), variance=torch.full((width,), 1 / width))
        size = min(images, ANCHORS)
        self.keep(anchors=torch.zeros(size, width), assigned=torch.zeros(size, classes))

    def fit(self, features: Table, logits: Table) -> None:
        """Alternate between updating the class probabilities z and fitting the Gaussians."""
        index = evenly_spaced(len(features), ANCHORS)
        anchors = F.normalize(features.at(index).float(), dim=1)  # a mean of several views is shorter
        text = logits.at(index).float().log_softmax(dim=1)
        self.anchors.copy_(anchors)
        z = text.exp()
        likeliest = z.topk(min(FIRST, len(z)), dim=0)
        self.centre(torch.zeros_like(z).scatter(0, likeliest.indices, likeliest.values).t() @ anchors)
        cosine, index = self.near(anchors, torch.arange(len(anchors)))
        for fitted in range(ROUNDS + 1):
            if fitted:
                self.locate(anchors, z)
            gauss = self.log_likelihood(anchors)
            for _ in range(SPREADS):
                around = torch.zeros_like(z)
                for share, number in zip(cosine.t().unsqueeze(2), index.t(), strict=True):  # one neighbour of each
                    around += share * z[number]
                    around.index_add_(0, number, share * z)  # what each image passes to this neighbour
                z = (text + gauss + around / (2 * NEAR)).softmax(dim=1)
        self.assigned.copy_(z)

    def centre(self, sums: Tensor) -> None:
        """Set the centres to sums of features, shape (C, k), scaled to unit length."""
        self.centres.copy_(F.normalize(sums, dim=1))

    def locate(self, features: Tensor, z: Tensor) -> None:
        """Fit centres and variance to features, shape (N, k), weighted by z, shape (N, C)."""
        sums = z.t() @ features
        self.centre(sums)
        squares = features.square().sum(dim=0) - 2 * (self.centres * sums).sum(dim=0)
        squares += (z.sum(dim=0).unsqueeze(1) * self.centres.square()).sum(dim=0)
        self.variance.copy_((squares / len(features)).clamp_min(1e-6))

    def log_likelihood(self, features: Tensor) -> Tensor:
        """Compute log-likelihoods of the Gaussians / `TEMPERATURE`, without terms all classes share. Shape (n, C)."""
        scaled = self.centres / self.variance / TEMPERATURE
        return features @ scaled.t() - (self.centres * scaled).sum(dim=1) / 2

    def near(self, features: Tensor, number: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find the nearest unlabeled images, as cosines and indices; see `nearest`. Shape (n, NEAR) each."""
        count = max(1, min(NEAR, len(self.anchors) - (number is not None)))
        return nearest(features, self.anchors, count, number)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Compute log z, up to a constant."""
        cosine, index = self.near(features.float())
        around = (cosine.unsqueeze(1) @ self.assigned[index]).squeeze(1)
        return logits.float().log_softmax(dim=1) + self.log_likelihood(features.float()) + around / NEAR


RULES: dict[str, Callable[[int, int, int], Rule]] = {
    "propagation": Propagation,
    "transclip": TransClip,
    "transport": Transport,
    "prior": Prior,
}


@dataclass(frozen=True)
class TrainingFreeSettings:
    """Settings of training-free adaptation."""

    rule: str = declared.setting("propagation", "rule that corrects the zero-shot logits", choices=tuple(RULES))
    label_views: int = declared.setting(COFT_DEFAULTS.label_views, "views of an image that are averaged", at_least=1)


class TrainingFree(Method):
    """Zero-shot CLIP with all templates, corrected by a rule.

    Features of the unlabeled images are averaged over `label_views` views, by default as many as in CoFT.

    Args:
        engine: The engine that runs the method.
        settings: Settings of training-free adaptation.
    """

    saves_state = False

    def __init__(self, engine: Engine, settings: TrainingFreeSettings) -> None:
        super().__init__(engine)
        self.settings = settings
        self.text = engine.clip.zero_shot_text().cpu()
        self.rule = RULES[settings.rule](len(engine.images), self.text.shape[1], len(self.text))
        self.models = {"rule": self.rule}

    @torch.no_grad()
    def begin(self) -> None:
        """Fit the rule to the unlabeled images."""
        features = self.engine.clip_features(self.settings.label_views)
        logits = zero_shot_logits(features, self.text, self.engine.clip.scale)
        self.rule.cpu().fit(features, logits)

    def predict(self, images: Tensor) -> Tensor:
        """Compute scores of images. Shape (n, C)."""
        features = self.engine.clip.encode(images).cpu()
        logits = self.engine.clip.scale * features @ self.text.t()
        return self.rule.cpu()(features, logits).to(images.device)
