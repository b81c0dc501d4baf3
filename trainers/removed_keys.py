"""Keys and values of earlier versions that are gone, and what became of each, for whoever still sets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coft.runtime.settings import keys

COFT_LIKE = ("COFT", "COFTPLUS", "COFTORACLE")
TUNING = ("LAFTER", "SELFTRAINING", "SUPERVISED")

_HEAD_LR = "heads learn with ten times LR"
_WEIGHT_DECAY = "weight decay is 5e-4"
_MODULES = {"VPT_TOKENS": "there are 20 tokens", "LORA_RANK": "the rank is 4", "ADAPTER_REDUCTION": "so is the adapter"}
_IN_COFT = {
    **_MODULES,
    "KG_WEIGHT": "nothing pulls text features towards the template",
    "SPLIT_SEEDS": "seeds are always dealt out to the peers by turns",
    "NEGATIVE_START": "negative prompts start from the mean of the classes",
    "COMPLEMENTS": "the dual loss is over all other classes",
    "SOFT": "weights of 0 and 1 are FILTER both-hard",
    "MIN_KEPT": "the surest four labels of each class, or a quarter of its seeds, always count in full",
    "MICRO_BATCH": "TRAIN.MICRO_BATCH has taken its place",
    "EVAL_FREQ": "TRAIN.EVAL_FREQ has taken its place",
    "PHASE1.WARMUP_STEPS": "the filter begins after 100 steps",
    "PHASE1.MIN_AUC": "nothing is filtered below an AUC of 0.9",
    "PHASE2.HEAD_LR": _HEAD_LR,
    "PHASE2.WEIGHT_DECAY": _WEIGHT_DECAY,
    "PHASE2.LAMBDA_DUAL": "Phase II has no dual loss",
    "PHASE2.VIEW": "Phase II trains on strong views",
    "PHASE2.CLASSIFY": "after its first labels Phase II goes by the positive vectors",
    "PHASE2.RENEW_SEEDS": "negative vectors are always fitted anew in Phase II",
    "PHASE2.FIT_TESTED": "negative vectors are always fitted to what is tested",
    "PHASE2.RESTART": "DeFT starts Phase II from pre-trained weights, and no other trainer does",
    "PHASE2.COMPILE": "TRAIN.COMPILE has taken its place",
}
_IN_DEFT = {
    **_IN_COFT,
    "SPLIT_SEEDS": "both models have the zero-shot labels of all images",
    "NEGATIVE_START": "the negative prompt starts beside the positive one",
    "COMPLEMENTS": "the dual loss draws one other class",
    "SOFT": "labels count in full or not at all",
    "PHASE2.CLASSIFY": "classes are those of the positive prompt",
    "PHASE2.RENEW_SEEDS": "the zero-shot labels are never renewed",
    "PHASE2.FIT_TESTED": "negative vectors are never fitted",
    "PHASE2.RESTART": "Phase II always starts from pre-trained weights",
    "PHASE2.REFRESH": "labels are filtered once for Phase II",
    **dict.fromkeys(("SEEDS_PER_CLASS", "SEEDS_SHARE"), "Phase I trains on all images"),
    "PRIOR_TAU": "the prior is not corrected",
    "LABEL_VIEWS": "labels are of one view",
    "CLEAN_RULE": "a label is clean where sigmoid(d) > 1/2",
    "CLASS_NEGATIVE": "there is one negative prompt",
    "CLASSIFY": "classes are those of the positive prompt",
    "FILTER": "each model filters for itself",
    "NEG_GRAD_TO_VISUAL": "the dual loss trains no visual module",
}
_IN_TUNING = {"HEAD_LR": _HEAD_LR, "WEIGHT_DECAY": _WEIGHT_DECAY}

# Full name of a key, and what became of it.
REMOVED: dict[str, str] = {
    **{f"TRAINER.{section}.{key}": fate for section in COFT_LIKE for key, fate in _IN_COFT.items()},
    **{f"TRAINER.DEFT.{key}": fate for key, fate in _IN_DEFT.items()},
    **{f"TRAINER.{section}.{key}": fate for section in TUNING for key, fate in _IN_TUNING.items()},
    **{f"TRAINER.LAFTER.{key}": fate for key, fate in _MODULES.items()},
    "TRAINER.COFTPLUS.WARM_START": "Phase I is run once",
    "TRAINER.COFTPLUS.CONTRAST.DIM": "there are 128 dimensions",
    "TRAINER.COFTPLUS.CONTRAST.QUEUE": "the queue holds 4,096 image features, or half as many as images if less",
    "TRAINER.COFTPLUS.CONTRAST.TEMPERATURE": "the temperature is 0.07",
    "TRAINER.COFTPLUS.DESCRIPTIONS.AT_SEEDS": "their share in the features that choose the first seeds is 0.25",
    "TRAINER.COFTPLUS.DESCRIPTIONS.AT_PREDICTION": "their share at prediction is 0.1",
}

_VALUES = {
    "CLASSIFY": {"clean": "joint or positive"},
    "CLEAN_RULE": {"open": "coupled or raw", "calibrated": "coupled or raw"},
    "FILTER": dict.fromkeys(
        ("agree", "threshold-0.5", "threshold-0.95"), "both, both-hard, peer, probability, self or none"
    ),
    "VISUAL": dict.fromkeys(("adapter", "vpt-shallow"), "auto, vpt-deep, lora, norms-and-biases or none"),
}
# Full name of a key, and of each value that is gone what there is instead.
REMOVED_VALUES: dict[str, dict[str, str]] = {
    **{f"TRAINER.{section}.{key}": gone for section in COFT_LIKE for key, gone in _VALUES.items()},
    **dict.fromkeys(("TRAINER.LAFTER.VISUAL", "TRAINER.DEFT.VISUAL"), _VALUES["VISUAL"]),
}


def what_became_of(name: str, value: Any, sections: Mapping[str, type]) -> str:
    """Say what became of a key, or of one of its values, that is gone; nothing if it is there, or never was.

    Args:
        name: Full name of the key.
        value: What it is set to.
        sections: Settings classes by section below TRAINER; in other sections nothing is gone.
    """
    section = next((part for part in sections if name.startswith(f"TRAINER.{part}.")), None)
    if section is None:
        return ""
    present = keys(sections[section], f"TRAINER.{section}")
    if name in REMOVED and name not in present:
        return f"{name} is gone: {REMOVED[name]}; leave it out"
    instead = REMOVED_VALUES.get(name, {}).get(value, "") if isinstance(value, str) else ""
    if instead and not (name in present and value in present[name].rule.choices):
        return f"{name} {value} is gone; set {instead}"
    return ""
