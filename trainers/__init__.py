"""Trainers: importing this package enters every one of them in Dassl's TRAINER_REGISTRY."""

from __future__ import annotations

from typing import Any

from . import (
    coft,
    coft_plus,
    coop,
    deft,
    grip,
    lafter,
    norm_adaptation,
    oracle,
    self_training,
    supervised,
    upl,
    zeroshot,
)

__all__ = [
    "coft",
    "coft_plus",
    "coop",
    "deft",
    "extend_cfg",
    "grip",
    "lafter",
    "norm_adaptation",
    "oracle",
    "self_training",
    "supervised",
    "upl",
    "zeroshot",
]

# In this order, for some take over the defaults of others. Zero-shot CLIP has no keys.
WITH_KEYS = (coop, upl, grip, coft, coft_plus, deft, oracle, self_training, supervised, lafter, norm_adaptation)


def extend_cfg(cfg: Any) -> None:
    """Add the project's keys to Dassl's config; call it before any file is merged.

    INPUT.SIZE, PIXEL_MEAN and PIXEL_STD become empty, which means: as the backbone has them.
    """
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all, base or new
    cfg.DATASET.UNLABELED = "train"  # the unlabeled images: train, train+val or test (transductive)
    cfg.DATASET.NUM_UNLABELED = 0  # unlabeled images to take, by content; 0 for all
    cfg.DATASET.IMAGES = ""  # of the data set Folder: where the images are
    cfg.DATASET.CLASSES = ""  # ... class names with commas between them, or a file
    cfg.DATASET.LABELS_FROM_FOLDERS = False  # ... whether folders' names count as labels in the evaluation
    cfg.DATASET.DESCRIPTIONS = "none"  # of classes, in the zero-shot classifier: none, auto (the data set's) or a file
    cfg.DATASET.DESCRIPTIONS_SHARE = 0.5  # their weight beside the templates
    cfg.MODEL.BACKBONE.TRUST_JIT = False  # read TorchScript archives that are not OpenAI's
    cfg.INPUT.SIZE = ()
    cfg.INPUT.PIXEL_MEAN = []
    cfg.INPUT.PIXEL_STD = []
    cfg.INPUT.INTERPOLATION = "bicubic"
    cfg.INPUT.REDUCED_JPEG = True  # decode large JPEGs at 1/2, 1/4, 1/8, but no smaller than twice INPUT.SIZE
    cfg.INPUT.SHRINK_TO = 0  # pixels of the shorter side to which images are shrunk once; 0: they stay as they are
    cfg.INPUT.CACHE_MB = 512  # decoded images of the unlabeled set are kept in memory, so much at most
    cfg.INPUT.AUGMENT = "natural"  # a name of parts/views.py: what the pictures are
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    for trainer in WITH_KEYS:
        trainer.add_config(cfg)
