"""Settings of images, data sets and loaders: Dassl's sections INPUT, DATASET and DATALOADER, and our keys in them.

Keys of Dassl that the project does not read are not declared. They keep Dassl's default, and its type is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .settings import setting, share

PICTURES = ("natural", "symbols", "aerial")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
SAMPLERS = ("RandomSampler", "SequentialSampler", "RandomDomainSampler", "SeqDomainSampler", "RandomClassSampler")
TRANSFORMS = (
    *("random_flip", "random_resized_crop", "normalize", "instance_norm", "random_crop", "random_translation"),
    *("center_crop", "cutout", "imagenet_policy", "cifar10_policy", "svhn_policy", "randaugment"),
    *("randaugment_fixmatch", "randaugment2", "gaussian_noise", "colorjitter", "randomgrayscale", "gaussian_blur"),
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
    crop_padding: int = setting(4, "random_crop: pixels around the image", at_least=0, at_most=1024)
    rrcrop_scale: tuple[float, ...] = setting(
        (0.08, 1.0), "random_resized_crop: least and most of the area", above=0.0, at_most=1.0, lengths=(2,)
    )
    cutout_n: int = setting(1, "cutout: number of squares", at_least=0, at_most=100)
    cutout_len: int = setting(16, "cutout: pixels of their sides", at_least=1)
    gn_mean: float = setting(0.0, "gaussian_noise: mean")
    gn_std: float = setting(0.15, "gaussian_noise: standard deviation", at_least=0.0)
    randaugment_n: int = setting(2, "randaugment and its kin: operations", at_least=0, at_most=100)
    randaugment_m: int = setting(10, "randaugment: strength", at_least=0, at_most=30)
    colorjitter_b: float = setting(0.4, "colorjitter: change of brightness", at_least=0.0)
    colorjitter_c: float = setting(0.4, "colorjitter: change of contrast", at_least=0.0)
    colorjitter_s: float = setting(0.4, "colorjitter: change of saturation", at_least=0.0)
    colorjitter_h: float = setting(0.1, "colorjitter: change of hue", at_least=0.0, at_most=0.5)
    rgs_p: float = share(0.2, "randomgrayscale: probability")
    gb_p: float = share(0.5, "gaussian_blur: probability")
    gb_k: int = setting(21, "gaussian_blur: pixels of the kernel, an odd number", at_least=1)
    reduced_jpeg: bool = setting(True, "decode large JPEGs at 1/2 to 1/8, no smaller than twice INPUT.SIZE", adapt=True)
    shrink_to: int = setting(
        0, "pixels of the shorter side to which images are shrunk once; 0: not at all", at_least=0, adapt=True
    )
    cache_mb: int = setting(
        512, "MB of decoded unlabeled images that stay in memory, at most", at_least=0, free=True, adapt=True
    )
    augment: str = setting("natural", "kind of images, which selects the augmentation", choices=PICTURES, adapt=True)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield keys with invalid values. A blur kernel has an odd width, and mirrors less than the image's size."""
        if sorted(self.rrcrop_scale) != [*self.rrcrop_scale]:
            yield "RRCROP_SCALE", "expected the smaller share first"
        if self.gb_k % 2 == 0:
            yield "GB_K", "expected an odd number"
        if "gaussian_blur" in self.transforms and self.size and self.gb_k // 2 >= min(self.size):
            yield "GB_K", f"expected less than twice INPUT.SIZE, which is {list(self.size)}"


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
    n_domain: int = setting(0, "RandomDomainSampler: domains of a batch; 0: all", at_least=0)
    n_ins: int = setting(16, "RandomClassSampler: images of each class of a batch", at_least=1)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield keys with invalid values. A batch must hold N_INS images of a class, or as many from each domain."""
        if self.sampler == "RandomClassSampler" and self.batch_size < self.n_ins:
            yield "BATCH_SIZE", f"RandomClassSampler needs at least N_INS, which is {self.n_ins}"
        if self.sampler == "RandomDomainSampler" and self.n_domain and self.batch_size % self.n_domain:
            yield "BATCH_SIZE", f"RandomDomainSampler needs a multiple of N_DOMAIN, which is {self.n_domain}"


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
