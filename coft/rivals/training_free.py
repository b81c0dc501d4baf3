"""Training-free adaptation: zero-shot logits, mended by what the unlabeled images look like. No gradient step.

Rules are fitted to the unlabeled images, and then say of a test image by itself what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core import settings as declared
from coft.core.table import Table
from coft.labelling.first_labels import zero_shot_logits
from coft.labelling.neighbours import ANCHORS, Anchors, NeighbourGraph, nearest, neighbour_count, read
from coft.labelling.prior import prior_offset
from coft.labelling.protocol import Engine, Method

from .coft_labels import COFT

ROUNDS, SPREADS = 10, 5  # of TransCLIP: fits of its Gaussians, and between two of them updates of z
NEAR, FIRST, TEMPERATURE = 3, 8, 50.0  # of TransCLIP
SWEEPS = 100  # of Sinkhorn's algorithm


class Rule(nn.Module):
    """Something fitted to features and zero-shot logits of all unlabeled images.

    Args:
        images: N.
        width: Of features, k.
        classes: C.
    """

    def __init__(self, images: int, width: int, classes: int) -> None:
        super().__init__()

    def keep(self, **tables: Tensor) -> None:
        """Register what a checkpoint holds, before the values are there: its shapes."""
        for name, table in tables.items():
            self.register_buffer(name, table)

    def fit(self, features: Tensor, logits: Tensor) -> None:
        """Fit. Shape (N, k) and (N, C)."""

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Scores of images from features of unit length and zero-shot logits. Shape (n, C)."""
        raise NotImplementedError


class Prior(Rule):
    """Zero-shot logits with CoFT's correction against classes that are hardly ever predicted."""

    offset: Tensor

    def __init__(self, images: int, width: int, classes: int) -> None:
        super().__init__(images, width, classes)
        self.keep(offset=torch.zeros(classes))

    def fit(self, features: Tensor, logits: Tensor) -> None:
        """Find each class's offset."""
        self.offset.copy_(prior_offset(Table.of(logits), COFT.prior_tau))

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Take it away."""
        return logits - self.offset


class Transport(Prior):
    """Optimal transport to equally frequent classes, as OTTER (NeurIPS 2024) has it, by Sinkhorn's algorithm.

    The offsets of the classes are its dual variables: with them the mean probability of each class is 1 / C.
    """

    def fit(self, features: Tensor, logits: Tensor) -> None:
        """Balance the classes."""
        scores = logits.double()
        offset = torch.zeros(scores.shape[1], dtype=torch.float64)
        for _ in range(SWEEPS):
            mean = (scores - offset).softmax(dim=1).mean(dim=0)
            offset += mean.clamp_min(1e-12).log() + torch.tensor(float(len(mean))).log()
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

    def fit(self, features: Tensor, logits: Tensor) -> None:
        """Spread the probabilities of all images, their prior corrected."""
        self.offset.copy_(prior_offset(Table.of(logits), COFT.prior_tau))
        graph = NeighbourGraph(Table.of(features), self.count)
        self.mean.copy_(graph.anchors.mean)
        self.anchors.copy_(graph.anchors.features)
        self.spread.copy_(graph.smooth_anchors((logits - self.offset).softmax(dim=1)[graph.index]))

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Read them from the neighbours."""
        anchors = Anchors(self.mean, self.anchors, min(self.count, len(self.anchors)))
        values = read(self.spread, *anchors.shares(features), (logits - self.offset).softmax(dim=1))
        return values.clamp_min(1e-30).log().to(logits.dtype)


class TransClip(Rule):
    """TransCLIP (Zanella, Gérin and Ben Ayed, NeurIPS 2024): a Gaussian mixture that text and neighbours guide.

    One variance a dimension for all classes. An image's classes z are proportional to
    p_text * exp(log p_gauss / 50 + (W z + W' z) / 6), where W has the cosines of each image's three nearest. At first,
    a class lies where its eight likeliest images do. Unlike the published method, images that are tested are no part
    of what is fitted: of such an image W z / 3 is in the place of both directions.
    """

    centres: Tensor
    variance: Tensor
    anchors: Tensor
    assigned: Tensor

    def __init__(self, images: int, width: int, classes: int) -> None:
        super().__init__(images, width, classes)
        self.keep(centres=torch.zeros(classes, width), variance=torch.full((width,), 1 / width))
        self.keep(anchors=torch.zeros(images, width), assigned=torch.zeros(images, classes))

    def fit(self, features: Tensor, logits: Tensor) -> None:
        """Alternate between what images are, and where classes lie."""
        features, text = features.float(), logits.float().log_softmax(dim=1)
        self.anchors.copy_(features)
        z = text.exp()
        likeliest = z.topk(min(FIRST, len(z)), dim=0)
        self.centre(torch.zeros_like(z).scatter(0, likeliest.indices, likeliest.values).t() @ features)
        cosine, index = self.near(features, torch.arange(len(features)))
        for fitted in range(ROUNDS + 1):
            if fitted:
                self.locate(features, z)
            gauss = self.log_likelihood(features)
            for _ in range(SPREADS):
                there = cosine.unsqueeze(2) * z.unsqueeze(1)  # what each image says to its neighbours
                back = torch.zeros_like(z).index_add(0, index.flatten(), there.flatten(0, 1))
                around = (cosine.unsqueeze(1) @ z[index]).squeeze(1) + back
                z = (text + gauss + around / (2 * NEAR)).softmax(dim=1)
        self.assigned.copy_(z)

    def centre(self, sums: Tensor) -> None:
        """Centres of unit length, from sums of features. Shape (C, k)."""
        self.centres.copy_(F.normalize(sums, dim=1))

    def locate(self, features: Tensor, z: Tensor) -> None:
        """Centres and variance, from images weighted by z. Shape (N, k) and (N, C)."""
        sums = z.t() @ features
        self.centre(sums)
        squares = features.square().sum(dim=0) - 2 * (self.centres * sums).sum(dim=0)
        squares += (z.sum(dim=0).unsqueeze(1) * self.centres.square()).sum(dim=0)
        self.variance.copy_((squares / len(features)).clamp_min(1e-6))

    def log_likelihood(self, features: Tensor) -> Tensor:
        """Of each class's Gaussian, without what all classes share, divided by `TEMPERATURE`. Shape (n, C)."""
        scaled = self.centres / self.variance / TEMPERATURE
        return features @ scaled.t() - (self.centres * scaled).sum(dim=1) / 2

    def near(self, features: Tensor, number: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cosines and numbers of the nearest unlabeled images; see `nearest`. Shape (n, NEAR) each."""
        count = max(1, min(NEAR, len(self.anchors) - (number is not None)))
        return nearest(features, self.anchors, count, number)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Log of z, up to a constant."""
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

    rule: str = declared.setting("propagation", "how zero-shot logits are mended", choices=tuple(RULES))
    label_views: int = declared.setting(COFT.label_views, "views that features are the mean of", at_least=1)


class TrainingFree(Method):
    """Zero-shot CLIP with all templates, mended by a rule.

    Features of the unlabeled images are means of as many views as those of CoFT's first labels.

    Args:
        engine: What runs it.
        settings: Those of training-free adaptation.
    """

    keeps_state = False

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
        self.rule.cpu().fit(features.all(), logits.all())

    def predict(self, images: Tensor) -> Tensor:
        """Scores of images. Shape (n, C)."""
        features = self.engine.clip.encode(images).cpu()
        logits = self.engine.clip.scale * features @ self.text.t()
        return self.rule.cpu()(features, logits).to(images.device)
