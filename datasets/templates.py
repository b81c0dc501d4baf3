"""Prompt templates of each data set.

The first template of a data set is CoOp's, if CoOp has this data set. Zero-shot tables, the labels of UPL and the first
peer of CoFT use it. The second peer starts from the second template. CoFT averages over all templates for its seeds.
"""

from __future__ import annotations

from coft.engine.class_names import GENERIC

TEMPLATES: dict[str, tuple[str, ...]] = {
    "Digits": ("a photo of the digit {}.", "a picture of the number {}.", "{}."),
    "Icons": ("an icon of a {}.", "a symbol of a {}.", "a drawing of a {}."),
    "Emoji": ("an emoji of a {}.", "a picture of a {}.", "a drawing of a {}."),
    "CIFAR10": (
        "a photo of a {}.",
        "a blurry photo of a {}.",
        "a low resolution photo of a {}.",
        "a photo of a small {}.",
    ),
    "CIFAR100": ("a photo of a {}.", "a blurry photo of a {}.", "a low resolution photo of a {}."),
    "FashionMNIST": ("a photo of a {}.", "a picture of a {}.", "a photo of a {}, a type of clothing."),
    "MNIST": ("a photo of the digit {}.", "a picture of the number {}.", "{}."),
    "STL10": ("a photo of a {}.", "a picture of a {}.", "a good photo of the {}."),
    "SVHN": ("a photo of the digit {}.", "a photo of the house number {}.", "a street sign of the number {}."),
    "IntelScenes": ("a photo of {}.", "a view of {}.", "a picture of a scene: {}.", "a photo of a scene with {}."),
    "EuroSAT": ("a centered satellite photo of {}.", "a satellite image of {}.", "an aerial view of {}."),
    "Caltech101": ("a photo of a {}.", "a picture of a {}.", "a photo of the {}."),
    "DescribableTextures": ("{} texture.", "a photo of a {} texture.", "a {} pattern."),
    "FGVCAircraft": ("a photo of a {}, a type of aircraft.", "a photo of the {} aircraft.", "an airplane: a {}."),
    "Food101": ("a photo of {}, a type of food.", "a plate of {}.", "a dish: {}."),
    "OxfordFlowers": ("a photo of a {}, a type of flower.", "a close-up of a {} flower.", "a {} in bloom."),
    "OxfordPets": ("a photo of a {}, a type of pet.", "a picture of a {}.", "a photo of my {}."),
    "StanfordCars": ("a photo of a {}.", "a picture of a {}, a car.", "a photo of the {} on the road."),
    "SUN397": ("a photo of a {}.", "a view of a {}.", "a picture of the {}, a place."),
    "UCF101": ("a photo of a person doing {}.", "a video frame of {}.", "someone during {}."),
    **dict.fromkeys(("ImageNet", "ImageNetV2", "ImageNetA"), GENERIC),
    "ImageNetSketch": ("a photo of a {}.", "a sketch of a {}.", "a drawing of a {}."),
    "ImageNetR": ("a photo of a {}.", "a rendition of a {}.", "a drawing of a {}."),
}
