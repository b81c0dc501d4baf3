"""Data sets: importing this package enters every one of them in Dassl's DATASET_REGISTRY."""

from . import digits, drawings, eurosat

__all__ = ["digits", "drawings", "eurosat"]
