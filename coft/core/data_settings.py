"""Settings of images, data sets and loaders: Dassl's sections INPUT, DATASET and DATALOADER, and our keys in them.

Keys of Dassl that nothing here reads are not declared. Their type is checked, and they have no effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .settings import setting, share

PICTURES = ("natural", "symbols", "aerial")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
SAMPLERS = ("RandomSampler", "SequentialSampler")
TRANSFORMS = (  # those of Dassl that have no further settings
    *("random_flip", "random_resized_crop", "normalize", "instance_norm", "random_translation", "center_crop"),
    *("imagenet_policy", "cifar10_policy", "svhn_policy"),
)


@dataclass(frozen=True)
class Input:
    """Reading of images, and augmentation of labelled ones."""

    size: tuple[int, ...] = setting(
        (),
        "height and width; []: follow the backbone, and only a CNN may read another square than its own",
        at_least=1,
        lengths=(0, 2),
        adapt=True,
    )
    interpolation: str = setting(
        "", "how images are resized; '': follow the backbone", choices=("", *INTERPOLATIONS), adapt=True
    )
    transforms: tuple[str, ...] = setting(
        ("random_resized_crop", "random_flip", "normalize"),
        "augmentation of labelled images; its deterministic parts are used for test images, too",
        choices=TRANSFORMS,
    )
    no_transform: bool = setting(False, "Dassl's: leave images as files, which CLIP does not read", choices=(False,))
    pixel_mean: tuple[float, ...] = setting(
        (), "mean of each channel, which is taken away; []: follow the backbone", lengths=(0, 3)
    )
    pixel_std: tuple[float, ...] = setting(
        (), "deviation of each channel, which is divided by; []: follow the backbone", above=0.0, lengths=(0, 3)
    )
    rrcrop_scale: tuple[float, ...] = setting(
        (0.08, 1.0), "random_resized_crop: least and most of the area", above=0.0, at_most=1.0, lengths=(2,)
    )
    reduced_jpeg: bool = setting(True, "decode large JPEGs at 1/2 to 1/8, no smaller than twice INPUT.SIZE", adapt=True)
    shrink_to: int = setting(
        0, "pixels of the shorter side to which images are shrunk once; 0: not at all", at_least=0, adapt=True
    )
    cache_mb: int = setting(
        512, "MB of decoded unlabeled images that stay in memory, at most", at_least=0, free=True, adapt=True
    )
    augment: str = setting("natural", "kind of images, which selects the augmentation", choices=PICTURES, adapt=True)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield keys with invalid values."""
        if sorted(self.rrcrop_scale) != [*self.rrcrop_scale]:
            yield "RRCROP_SCALE", "expected the smaller share first"


@dataclass(frozen=True)
class Dataset:
    """The data set, and the images that are taken from it."""

    root: str = setting("", "folder of all data sets; empty: data", free=True)
    name: str = setting("", "name of the data set, as configs/datasets has it")
    source_domains: tuple[str, ...] = setting((), "source domains, for domain adaptation")
    target_domains: tuple[str, ...] = setting((), "target domains, for domain adaptation")
    num_shots: int = setting(-1, "labelled images of each class; -1 or 0: all", at_least=-1)
    subsample_classes: str = setting("all", "all classes, the first half, or the rest", choices=("all", "base", "new"))
    unlabeled: str = setting("train", "which images are the unlabeled ones", choices=("train", "train+val", "test"))
    num_unlabeled: int = setting(0, "unlabeled images to take, chosen by content; 0: all", at_least=0)
    pool: int = setting(1, "which disjoint subset of NUM_UNLABELED images: 1 is the first, 2 the next", at_least=1)
    ratio: float = setting(1.0, "for experiments: commonest class by rarest in the pool, drawn by labels", at_least=1.0)
    num_test: int = setting(0, "test images to take, chosen by content; 0: all", at_least=0)
    domain: str = setting("photo", "PACSDomain: photo, art_painting, cartoon or sketch")
    images: str = setting("", "Folder: where your images are")
    classes: str = setting("", "Folder: class names separated by commas, or a file of them")
    labels_from_folders: bool = setting(False, "Folder: names of folders count as labels, in the evaluation alone")
    descriptions: str = setting(
        "none", "descriptions of classes in the zero-shot classifier: none, auto (the data set's), or a file"
    )
    descriptions_share: float = share(0.5, "their weight beside the templates")


@dataclass(frozen=True)
class TrainLoader:
    """Batches of labelled images."""

    sampler: str = setting("RandomSampler", "in which order images come", choices=SAMPLERS)
    batch_size: int = setting(32, "images of a batch; of each peer, where there are peers", at_least=1, adapt=True)


@dataclass(frozen=True)
class UnlabeledLoader(TrainLoader):
    """Dassl's batches of unlabeled images. The project's trainers draw their own, of size TRAIN_X.BATCH_SIZE."""

    batch_size: int = setting(32, "images of a batch", at_least=1)
    same_as_x: bool = setting(True, "as TRAIN_X")


@dataclass(frozen=True)
class TestLoader:
    """Batches of test images."""

    sampler: str = setting(
        "SequentialSampler", "predictions are paired with images by their order", choices=("SequentialSampler",)
    )
    batch_size: int = setting(32, "images of a batch", at_least=1, adapt=True)


@dataclass(frozen=True)
class Dataloader:
    """Data loaders."""

    num_workers: int = setting(
        4, "processes that read images, no more than there are cores; 0: none", at_least=0, free=True, adapt=True
    )
    train_x: TrainLoader = field(default_factory=TrainLoader)
    train_u: UnlabeledLoader = field(default_factory=UnlabeledLoader)
    test: TestLoader = field(default_factory=TestLoader)
