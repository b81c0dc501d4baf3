"""Settings of a run with any method: the root of the config, and Dassl's sections with our keys in them.

Keys of Dassl that nothing here reads are not declared. Their type is checked, and they have no effect.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from .settings import keys, setting, share

PICTURES = ("natural", "symbols", "aerial")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
SAMPLERS = ("RandomSampler", "SequentialSampler")
TRANSFORMS = (  # those of Dassl that have no further settings
    *("random_flip", "random_resized_crop", "normalize", "instance_norm", "random_translation", "center_crop"),
    *("imagenet_policy", "cifar10_policy", "svhn_policy"),
)
OPTIMIZERS = ("adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw")
SCHEDULES = ("single_step", "multi_step", "cosine")
WARMUPS = ("linear", "constant")
COMPILERS = ("", "inductor", "cudagraphs", "aot_eager", "eager")


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


@dataclass(frozen=True)
class Backbone:
    """The CLIP model."""

    name: str = setting("", "OpenAI's name of a CLIP, the path of a checkpoint, open_clip:MODEL/TAG, or our own")
    trust_jit: bool = setting(
        False, "read TorchScript archives that are not OpenAI's; such an archive is a program", adapt=True
    )
    frozen_stages: int = setting(
        -1,
        "first stages of a timm image encoder, the stem included, that never train; -1: follow the backbone",
        at_least=-1,
        adapt=True,
    )


@dataclass(frozen=True)
class Model:
    """The model that is trained."""

    init_weights: str = setting("", "CoOp and its kin: checkpoint of prompts to start from")
    backbone: Backbone = field(default_factory=Backbone)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield INIT_WEIGHTS if the file does not exist."""
        if self.init_weights and not os.path.isfile(self.init_weights):  # noqa: PTH113 - a Path cannot be any text
            yield "INIT_WEIGHTS", "no such file: give a checkpoint of prompts, or none"


@dataclass(frozen=True)
class Optim:
    """The optimizer of prompts and light modules."""

    name: str = setting("adam", "optimizer", choices=OPTIMIZERS)
    lr: float = setting(0.0003, "learning rate", at_least=0.0, adapt=True)
    weight_decay: float = setting(5e-4, "weight decay", at_least=0.0, adapt=True)
    momentum: float = share(0.9, "sgd, rmsprop: momentum", adapt=True)
    sgd_dampning: float = share(0.0, "sgd: dampening of the momentum")
    sgd_nesterov: bool = setting(False, "sgd: Nesterov's momentum")
    rmsprop_alpha: float = share(0.99, "rmsprop: decay of the mean of squares")
    adam_beta1: float = setting(0.9, "adam and its kin: decay of the mean", at_least=0.0, below=1.0)
    adam_beta2: float = setting(0.999, "adam and its kin: decay of the mean of squares", at_least=0.0, below=1.0)
    staged_lr: bool = setting(
        False, "Dassl's: one more learning rate for new layers; no trainer has any", choices=(False,)
    )
    lr_scheduler: str = setting("single_step", "schedule of the learning rate", choices=SCHEDULES)
    stepsize: tuple[int, ...] = setting(
        (-1,),
        "multi_step: epochs after which LR falls; single_step: the last of them is the period, -1 all epochs",
        at_least=-1,
    )
    gamma: float = setting(0.1, "factor by which LR falls", at_least=0.0)
    max_epoch: int = setting(10, "epochs of CoOp and UPL; of a round of GRIP and CPL", at_least=1)
    warmup_epoch: int = setting(-1, "epochs of warm-up; 0 or -1: none", at_least=-1)
    warmup_type: str = setting("linear", "LR in the warm-up", choices=WARMUPS)
    warmup_cons_lr: float = setting(1e-5, "constant warm-up: its learning rate", at_least=0.0)
    warmup_min_lr: float = setting(1e-5, "linear warm-up: learning rate of its first epoch", at_least=0.0)
    warmup_recount: bool = setting(True, "the schedule begins after the warm-up; False: it counts those epochs, too")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield keys whose values PyTorch would reject or misinterpret."""
        if not self.stepsize:
            yield "STEPSIZE", "expected at least one epoch, such as [20]"
        if self.lr_scheduler == "multi_step" and (min(self.stepsize) < 1 or sorted(self.stepsize) != [*self.stepsize]):
            yield "STEPSIZE", "multi_step needs epochs of at least 1, the earlier ones first"
        if self.name == "sgd" and self.sgd_nesterov and (not self.momentum or self.sgd_dampning):
            yield "SGD_NESTEROV", "it needs a MOMENTUM above 0 and an SGD_DAMPNING of 0"


@dataclass(frozen=True)
class Train:
    """The training loop and its log."""

    checkpoint_freq: int = setting(0, "epochs between checkpoints; 0: after the last epoch only", at_least=0)
    print_freq: int = setting(10, "batches between two lines of the log", at_least=1, free=True)
    eval_freq: int = setting(5, "epochs between accuracies for the curves; 0: ends of the phases only", at_least=0)
    micro_batch: int = setting(
        0, "images that go through an encoder at a time, for less memory; 0: the whole batch", at_least=0, adapt=True
    )
    guard: bool = setting(  # not of Phase II alone: it can skip the training of Phase I
        True,
        "CoFT, CoFT+: where CLIP hardly knows the classes, train nothing and predict by zero-shot CLIP",
        phase2=False,
        adapt=True,
    )
    phase1_from: str = setting(  # free, for Phase I with the same settings is bit-identical
        "", "output folder of a run whose Phase I this one takes, to differ in Phase II", free=True
    )
    compile: str = setting(
        "", "backend of torch.compile for the encoders of full fine-tuning; empty: none", choices=COMPILERS, adapt=True
    )


@dataclass(frozen=True)
class Test:
    """The evaluation."""

    evaluator: str = setting("Classification", "name of an evaluator in Dassl's registry")
    per_class_result: bool = setting(False, "also report the accuracy of each class")
    compute_cmat: bool = setting(False, "write a confusion matrix to cmat.pt")
    no_test: bool = setting(False, "do not evaluate after training")
    split: str = setting("test", "which images are evaluated", choices=("test", "val"))
    final_model: str = setting(
        "last_step", "the last epoch, or the best on validation images, by labels", choices=("last_step", "best_val")
    )


@dataclass(frozen=True)
class Trainer:
    """Choice of the trainer; each trainer has a section of its own below."""

    name: str = setting("", "name of the trainer")


@dataclass(frozen=True)
class Root:
    """Root of the config: output, seed and device of the run, and all sections."""

    output_dir: str = setting("./output", "folder for results and checkpoints", free=True)
    resume: str = setting("", "output folder of a run to go on from", free=True)
    seed: int = setting(
        -1, "random seed; -1: the seed of the resumed run, or a random one", at_least=-1, at_most=2**32 - 1
    )
    use_cuda: bool = setting(True, "use the GPU, if there is one", free=True, adapt=True)
    verbose: bool = setting(True, "log what is built", free=True)
    input: Input = field(default_factory=Input)
    dataset: Dataset = field(default_factory=Dataset)
    dataloader: Dataloader = field(default_factory=Dataloader)
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train, metadata={"phase2": True})
    test: Test = field(default_factory=Test, metadata={"phase2": True})
    trainer: Trainer = field(default_factory=Trainer)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield OUTPUT_DIR if it is empty."""
        if not self.output_dir.strip():
            yield "OUTPUT_DIR", "expected the path of a folder"


RUN_KEYS = keys(Root)
# Keys that may differ when a run is resumed: they affect locations, speed and output, but no results.
FREE_KEYS = {name for name, key in RUN_KEYS.items() if key.free}
