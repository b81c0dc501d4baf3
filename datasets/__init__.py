"""Data sets: importing this package enters every one of them in Dassl's DATASET_REGISTRY."""

from . import digits, drawings, eurosat, torchvision_sets

__all__ = ["digits", "drawings", "eurosat", "torchvision_sets"]
