"""CoFT's first labels for rivals: a comparison is then of what comes after them."""

from __future__ import annotations

from typing import Any

from coft.core.settings import setting
from coft.core.table import Table
from coft.labelling.first_labels import first_scores, spread_scores
from coft.labelling.neighbours import NeighbourGraph, neighbour_count
from coft.labelling.protocol import Engine, Images
from coft.labelling.seeds import SEEDS_SHARE, seed_quota
from coft.method.coft_settings import CoFTSettings
from coft.method.two_phases import steps_of_phase1

COFT = CoFTSettings()  # for rivals that make their labels, or as many steps, as CoFT does
OWN, SPREAD, COFTS = "own", "spread", "coft"


def labels_setting() -> Any:
    """The setting of a rival that says where its first labels are from."""
    about = "first labels: its own; spread: of CoFT's views, prior and neighbours; coft: CoFT's, with Gaussians"
    return setting(OWN, about, choices=(OWN, SPREAD, COFTS))


def views_setting() -> Any:
    """The setting of a rival that has as many views as CoFT, unless its labels are its own."""
    about = "views of an image that a pseudo-label is the mean of; with labels own: 1"
    return setting(COFT.label_views, about, at_least=1)


def coft_phase1_steps(images: Images, num_classes: int) -> int:
    """Steps that CoFT's Phase I has by its defaults."""
    seeds = seed_quota(len(images), num_classes, COFT.seeds_per_class, SEEDS_SHARE) * num_classes
    return COFT.phase1.epochs * steps_of_phase1(images.steps(min(seeds, len(images))), COFT.phase1)


def coft_scores(engine: Engine, labels: str, views: int, tau: float) -> Table:
    """Log-probabilities of all images that CoFT's first labels are from.

    Args:
        engine: What runs the rival.
        labels: The setting.
        views: Of each image.
        tau: Strength of the prior correction.

    Returns:
        Shape (N, C), fp64.
    """
    clip, features = engine.clip, engine.clip_features(views)
    graph = NeighbourGraph(features, neighbour_count(len(features), len(clip.classnames)))
    args = features, clip.zero_shot_text(), clip.scale, tau, graph
    return first_scores(*args)[0] if labels == COFTS else spread_scores(*args)
