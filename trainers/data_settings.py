"""Settings of data sets: Dassl's section DATASET, and our keys in it."""

from __future__ import annotations

from dataclasses import dataclass

from coft.core.settings import setting, share
from datasets.base import UNLABELED


@dataclass(frozen=True)
class Dataset:
    """Which images."""

    root: str = setting("", "folder of all data sets; empty: data")
    name: str = setting("", "name of the data set, as configs/datasets has it")
    source_domains: tuple[str, ...] = setting((), "source domains, for domain adaptation")
    target_domains: tuple[str, ...] = setting((), "target domains, for domain adaptation")
    num_labeled: int = setting(-1, "Dassl's: labelled images; not read here", at_least=-1)
    num_shots: int = setting(-1, "labelled images of each class; -1 or 0: all", at_least=-1)
    val_percent: float = share(0.1, "Dassl's: share of the images for validation; not read here")
    stl10_fold: int = setting(-1, "Dassl's: fold of STL-10; not read here", at_least=-1, at_most=9)
    cifar_c_type: str = setting("", "Dassl's: corruption of CIFAR-C; not read here")
    cifar_c_level: int = setting(1, "Dassl's: strength of it; not read here", at_least=1, at_most=5)
    all_as_unlabeled: bool = setting(False, "Dassl's: use labelled images as unlabeled ones, too; not read here")
    subsample_classes: str = setting("all", "all classes, the first half, or the rest", choices=("all", "base", "new"))
    unlabeled: str = setting("train", "which images are the unlabeled ones", choices=tuple(UNLABELED))
    num_unlabeled: int = setting(0, "unlabeled images to take, chosen by content; 0: all", at_least=0)
    num_test: int = setting(0, "test images to take, chosen by content; 0: all", at_least=0)
    domain: str = setting("photo", "PACSDomain: photo, art_painting, cartoon or sketch")
    images: str = setting("", "Folder: where your images are")
    classes: str = setting("", "Folder: class names with commas between them, or a file of them")
    labels_from_folders: bool = setting(False, "Folder: names of folders count as labels, in the evaluation alone")
    descriptions: str = setting(
        "none", "descriptions of classes in the zero-shot classifier: none, auto (the data set's), or a file"
    )
    descriptions_share: float = share(0.5, "their weight beside the templates")
