"""CoFT's first labels for rivals, so that a comparison covers only what comes after the first labels."""

from __future__ import annotations

from typing import Any

from coft.core.settings import setting
from coft.core.table import Table
from coft.labelling.first_labels import corrected_scores, zero_shot_logits
from coft.labelling.neighbours import NeighbourGraph, neighbour_count
from coft.labelling.protocol import Engine, Images
from coft.labelling.seeds import SEEDS_SHARE, seed_quota
from coft.method.coft_settings import CoFTSettings
from coft.method.two_phases import steps_of_phase1

COFT_DEFAULTS = CoFTSettings()  # defaults of CoFT, for rivals that share its labels or its number of steps
OWN_LABELS, PROPAGATED_LABELS, COFT_LABELS = "own", "propagated", "coft"


def labels_setting() -> Any:
    """Return the setting of a rival that selects its first labels."""
    about = "first labels. own: the rival's; propagated: CoFT's before the Gaussians; coft: CoFT's"
    return setting(OWN_LABELS, about, choices=(OWN_LABELS, PROPAGATED_LABELS, COFT_LABELS))


def views_setting() -> Any:
    """Return the setting of a rival's number of views, by default CoFT's; unused if its labels are its own."""
    about = "views of an image that are averaged for a pseudo-label; 1 if labels is own"
    return setting(COFT_DEFAULTS.label_views, about, at_least=1)


def coft_phase1_steps(images: Images, num_classes: int) -> int:
    """Return the number of steps of CoFT's Phase I with default settings."""
    seeds = seed_quota(len(images), num_classes, COFT_DEFAULTS.seeds_per_class, SEEDS_SHARE) * num_classes
    return COFT_DEFAULTS.phase1.epochs * steps_of_phase1(images.steps(min(seeds, len(images))), COFT_DEFAULTS.phase1)


def coft_scores(engine: Engine, labels: str, views: int, tau: float) -> Table:
    """Compute the log-probabilities of all images from which CoFT's first labels are taken.

    Args:
        engine: The engine that runs the rival.
        labels: Value of `labels_setting`; "coft" includes the correction by Gaussians.
        views: Number of views of an image.
        tau: Strength of the prior correction.

    Returns:
        Log-probabilities. Shape (N, C), fp64.
    """
    clip, features = engine.clip, engine.clip_features(views)
    graph = NeighbourGraph(features, neighbour_count(len(features), len(clip.classnames)))
    logits = zero_shot_logits(features, clip.zero_shot_text(), clip.scale)
    scores, propagated = corrected_scores(features, logits, tau, graph)
    return scores if labels == COFT_LABELS else propagated
