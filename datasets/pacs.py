"""PACS: seven classes as photographs, art paintings, cartoons and sketches (Li et al. 2017), one domain at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coft.core.errors import UserError, did_you_mean
from dassl.data.datasets import DATASET_REGISTRY

from .base import DeclaredDataset, Items, dataset_root
from .folders import first_folder, letters_of, read_folders
from .splits import split_by_class

CLASSNAMES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
TEMPLATES = {  # by domain
    "photo": ("a photo of a {}.", "a picture of a {}.", "a good photo of the {}.", "a close-up photo of a {}."),
    "art_painting": ("an art painting of a {}.", "a painting of a {}.", "an oil painting of a {}.", "a {} in art."),
    "cartoon": ("a cartoon of a {}.", "a cartoon drawing of a {}.", "a comic picture of a {}.", "a cartoon {}."),
    "sketch": ("a sketch of a {}.", "a pencil drawing of a {}.", "a line drawing of a {}.", "a rough sketch of a {}."),
}
DOMAINS = tuple(TEMPLATES)
OTHER_NAMES = {"art": "art_painting"}  # names of domains in papers
FOLDERS = ("pacs", "PACS", "pacs_data")  # names of the data set's folder
IMAGES = (".", "images", "kfold", "pacs_data")  # subfolders that may hold the folders of the domains


@DATASET_REGISTRY.register()
class PACSDomain(DeclaredDataset):
    """The domain of PACS that DATASET.DOMAIN names: 1,670 photos, 2,048 art paintings, 2,344 cartoons, 3,929 sketches.

    Layout: `<root>/pacs/<domain>/<class>/*.jpg`, or the same in a subfolder: `images/` (as in Dassl), `kfold/` or
    `pacs_data/`. The other domains need not be present.

    Each class is split at random with a fixed seed: half for training, a fifth for validation, the rest for the test.
    All layouts have the same split, and no method sees the test images unless DATASET.UNLABELED is "test".
    PACS's own lists `<domain>_{train,crossval,test}_kfold.txt` are not used: they serve methods that train on other
    domains, and a test list is the union of the other two.

    The name PACS is taken by Dassl's data set for domain generalization.

    Attributes:
        title: Name in results.
        templates: Prompt templates of the domain.
    """

    dataset_dir = FOLDERS[0]

    def __init__(self, cfg: Any) -> None:
        domain = chosen_domain(cfg.DATASET)
        root, images = require_images(dataset_root(cfg), domain)
        self.dataset_dir = str(root)
        self.title, self.templates = f"PACS {domain}", TEMPLATES[domain]
        train, val, test = split_items(read_folders(images / domain, CLASSNAMES), images)
        super().__init__(cfg, classnames=CLASSNAMES, train=train, val=val, test=test)


def chosen_domain(options: Any) -> str:
    """Return the domain that a config names.

    Args:
        options: Section DATASET of the config.

    Raises:
        UserError: If there is no such domain, or Dassl's keys for several domains are set.
    """
    for key in ("SOURCE_DOMAINS", "TARGET_DOMAINS"):
        if getattr(options, key, ()):
            raise UserError(f"DATASET.{key} is set, but PACSDomain has one domain; use DATASET.DOMAIN in its place")
    name = getattr(options, "DOMAIN", DOMAINS[0])  # the config of another plugin may lack this key
    domain_of = {letters_of(domain): domain for domain in DOMAINS} | OTHER_NAMES
    if letters_of(name) not in domain_of:
        raise UserError(f"DATASET.DOMAIN is {name!r}; expected one of {', '.join(DOMAINS)}{_hint(name)}")
    return domain_of[letters_of(name)]


def _hint(name: str) -> str:
    hint = did_you_mean(name, DOMAINS)
    return f"; {hint}" if hint.endswith("?") else ""


def find_images(data: Path, domains: Sequence[str]) -> tuple[Path, Path] | None:
    """Return the data set's folder and its subfolder of domains, the first with one of these domains; or None."""
    pairs = ((data / folder, data / folder / subfolder) for folder in FOLDERS for subfolder in IMAGES)
    return next(((root, images) for root, images in pairs if first_folder(images, domains)), None)


def find_root(data: Path) -> Path | None:
    """Return the folder of the data set if it has a domain, else None."""
    folders = find_images(data, DOMAINS)
    return folders[0] if folders else None


def require_images(data: Path, domain: str) -> tuple[Path, Path]:
    """Return the data set's folder and its subfolder of domains.

    Args:
        data: Data root.
        domain: Name of the required domain.

    Raises:
        UserError: If the domain is missing. The message names other domains that exist.
    """
    if folders := find_images(data, [domain]):
        return folders
    remedy = "see: bash scripts/data.sh pacs"
    if folders := find_images(data, DOMAINS):
        present = [name for name in DOMAINS if (folders[1] / name).is_dir()]
        raise UserError(
            f"PACSDomain: no {domain} at {folders[1] / domain}, but {' and '.join(present)}; "
            f"write DATASET.DOMAIN {present[0]}, or {remedy}"
        )
    raise UserError(
        f"PACSDomain: no {domain} at {data / FOLDERS[0] / domain}; {remedy}, or set DATA to the folder that has it"
    )


def split_items(items: Items, images: Path) -> tuple[Items, Items, Items]:
    """Split the images of a domain within each class. The split depends only on paths below `images`.

    Args:
        items: Images of the domain.
        images: Parent of the folders of the domains.

    Returns:
        Images of training, validation and test.
    """
    by_path = {Path(item.impath).relative_to(images).as_posix(): item for item in items}
    split = split_by_class((path, item.label, item.classname) for path, item in by_path.items())
    train, val, test = ([by_path[path] for path, _, _ in split[part]] for part in ("train", "val", "test"))
    return train, val, test
