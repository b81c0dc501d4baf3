"""Trainers: importing this package enters every one of them in Dassl's TRAINER_REGISTRY."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from coft.runtime.settings import defaults

from . import (
    coft,
    coft_plus,
    coop,
    deft,
    lafter,
    norm_adaptation,
    oracle,
    self_training,
    supervised,
    zeroshot,
)
from .sections import SECTIONS

__all__ = [
    "coft",
    "coft_plus",
    "coop",
    "deft",
    "extend_cfg",
    "lafter",
    "norm_adaptation",
    "oracle",
    "self_training",
    "supervised",
    "zeroshot",
]


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
    cfg.TRAIN.EVAL_FREQ = 5  # epochs between accuracies of the curves; 0: at the ends of the phases only
    cfg.TRAIN.MICRO_BATCH = 0  # images that go through the encoder at a time; 0: the whole batch
    cfg.TRAIN.COMPILE = ""  # backend of torch.compile for encoders that train in full, or none
    for name, settings in SECTIONS.items():
        cfg.TRAINER[name] = CfgNode(defaults(settings))
