"""Settings of CoFT: keys of the config, with types, bounds and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from coft.core.precision import precision_setting
from coft.core.settings import setting, share
from coft.labelling.classifier import CLEAN_RULES, SCORES

from .filters import FILTERS, SEED_FILTERS

FITTED, NONE = "fitted", "none"
NEGATIVES = (FITTED, "prompt", NONE)  # kinds of negative prompts


@dataclass(frozen=True)
class Phase1:
    """Parameter-efficient tuning on the seeds."""

    epochs: int = setting(10, "epochs of Phase I", at_least=1)
    min_steps: int = setting(100, "steps of Phase I, at least; an epoch is a pass over the seeds", at_least=0)


@dataclass(frozen=True)
class Phase2:
    """Full fine-tuning of the image encoders on pseudo-labels of all images."""

    epochs: int = setting(10, "epochs of Phase II", at_least=1)
    lr: float = setting(1e-5, "learning rate of the image encoders; the heads have ten times as much", at_least=0.0)
    ema: float = share(0.99, "decay of the EMA weights, which label images and are evaluated")
    wise: float = share(0.5, "share of Phase II in the evaluated weights (WiSE-FT); 1: Phase II alone")


@dataclass(frozen=True)
class CoFTSettings:
    """Settings of CoFT."""

    prec: str = precision_setting()
    n_ctx: int = setting(0, "random context tokens; 0: the words of the data set's template", at_least=0)
    visual: str = setting("auto", "light visual module of Phase I; auto: vpt-deep for a ViT, else norms-and-biases")
    seeds_per_class: int = setting(16, "seeds of each class for each peer, at most", at_least=1)
    prior_tau: float = setting(
        0.5,
        "strength of the prior correction, which favours rarely predicted classes, and of fairness in Phase II",
        at_least=0.0,
        at_most=10.0,
    )
    label_views: int = setting(2, "views of an image that are averaged for a pseudo-label", at_least=1)
    clean_rule: str = setting("softmax", "how d becomes p_clean", choices=tuple(CLEAN_RULES))
    negative: str = setting(
        "fitted",
        "fitted: a negative vector per class, fitted to labels; prompt: a trained prompt; none",
        choices=NEGATIVES,
    )
    classify: str = setting(
        "both-prompts", "classify by both prompts, or by the positive prompt alone", choices=tuple(SCORES)
    )
    filter: str = setting(
        "min-p-clean",
        "pseudo-label filter; none: all labels and seeds have weight 1",
        choices=tuple(FILTERS),
        phase2=True,
        in_phase1=tuple(SEED_FILTERS),
    )
    phase1: Phase1 = field(default_factory=Phase1)
    phase2: Phase2 = field(default_factory=Phase2, metadata={"phase2": True})
