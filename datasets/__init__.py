"""Data sets: importing this package enters every one of them in Dassl's DATASET_REGISTRY."""

from . import (
    caltech101,
    digits,
    drawings,
    dtd,
    eurosat,
    fgvc_aircraft,
    folder,
    food101,
    imagenet,
    oxford_flowers,
    oxford_pets,
    stanford_cars,
    sun397,
    torchvision_sets,
    ucf101,
)

__all__ = [
    "caltech101",
    "digits",
    "drawings",
    "dtd",
    "eurosat",
    "fgvc_aircraft",
    "folder",
    "food101",
    "imagenet",
    "oxford_flowers",
    "oxford_pets",
    "stanford_cars",
    "sun397",
    "torchvision_sets",
    "ucf101",
]
