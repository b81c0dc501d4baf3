"""PACS: seven classes as photographs, art paintings, cartoons and sketches (Li et al. 2017), a domain at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coft.core.errors import UserError, did_you_mean
from dassl.data.datasets import DATASET_REGISTRY

from .base import DeclaredDataset, Items, dataset_root
from .domain_lists import read_lists
from .folders import first_folder, read_folders, spelled
from .splits import split_by_class

CLASSNAMES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
TEMPLATES = {  # by domain
    "photo": ("a photo of a {}.", "a picture of a {}.", "a good photo of the {}.", "a close-up photo of a {}."),
    "art_painting": ("an art painting of a {}.", "a painting of a {}.", "an oil painting of a {}.", "a {} in art."),
    "cartoon": ("a cartoon of a {}.", "a cartoon drawing of a {}.", "a comic picture of a {}.", "a cartoon {}."),
    "sketch": ("a sketch of a {}.", "a pencil drawing of a {}.", "a line drawing of a {}.", "a rough sketch of a {}."),
}
DOMAINS = tuple(TEMPLATES)
OTHER_NAMES = {"art": "art_painting"}  # of domains, in tables of papers
FOLDERS = ("pacs", "PACS", "pacs_data")
IMAGES = (".", "images", "kfold", "pacs_data")  # what the domains' folders may be in
LISTS = ("splits", "pacs_label", *IMAGES)  # what the split lists may be in


@DATASET_REGISTRY.register()
class PACSDomain(DeclaredDataset):
    """The domain of PACS that DATASET.DOMAIN names: 1,670 photos, 2,048 art paintings, 2,344 cartoons, 3,929 sketches.

    Layout: `<root>/pacs/<domain>/<class>/*.jpg`, or one folder further down: `images/` (as Dassl has it), `kfold/`,
    `pacs_data/`. A domain alone is enough.

    Each class is split at random, but always the same way: a half for training, a fifth for validation, the rest for
    the test. So all layouts have one split, no method has seen the test, and learning from its images is a choice, as
    for other data sets (DATASET.UNLABELED test). Lists `<domain>_{train,crossval,test}_kfold.txt`
    are used if their test images are in no other list. Those that go with PACS are not like that: a domain's test
    list is its other two together, for it is made for methods that were trained on the other domains.

    It is not called PACS: that is Dassl's, for domain generalization.

    Attributes:
        title: What results call it.
        templates: Prompts that fit the domain.
    """

    dataset_dir = FOLDERS[0]
    domains = DOMAINS
    templates = TEMPLATES["photo"]

    def __init__(self, cfg: Any) -> None:
        domain = chosen_domain(cfg.DATASET)
        root, images = require_images(dataset_root(cfg), domain)
        self.dataset_dir = str(root)
        self.title, self.templates = f"PACS {domain}", TEMPLATES[domain]
        parts = read_lists([root / place for place in LISTS], images, domain, CLASSNAMES)
        train, val, test = parts or split_items(read_folders(images / domain, CLASSNAMES), images)
        super().__init__(cfg, classnames=CLASSNAMES, train=train, val=val, test=test)


def chosen_domain(options: Any) -> str:
    """The domain that a config asks for.

    Args:
        options: Section DATASET.

    Raises:
        UserError: If there is no such domain, or Dassl's keys for several are set.
    """
    for key in ("SOURCE_DOMAINS", "TARGET_DOMAINS"):
        if getattr(options, key, ()):
            raise UserError(f"DATASET.{key} is set, but PACSDomain has one domain; use DATASET.DOMAIN in its place")
    name = getattr(options, "DOMAIN", DOMAINS[0])  # a plugin with a config of its own may lack our key
    known = {spelled(domain): domain for domain in DOMAINS} | OTHER_NAMES
    if spelled(name) not in known:
        raise UserError(f"DATASET.DOMAIN is {name!r}; expected one of {', '.join(DOMAINS)}{_hint(name)}")
    return known[spelled(name)]


def _hint(name: str) -> str:
    hint = did_you_mean(name, DOMAINS)
    return f"; {hint}" if hint.endswith("?") else ""


def find_images(data: Path, domains: Sequence[str]) -> tuple[Path, Path] | None:
    """The data set's folder, and what the domains' folders are in; the first that has one of these domains."""
    pairs = ((data / folder, data / folder / place) for folder in FOLDERS for place in IMAGES)
    return next(((root, images) for root, images in pairs if first_folder(images, domains)), None)


def find_root(data: Path) -> Path | None:
    """The data set's folder, if it has a domain."""
    found = find_images(data, DOMAINS)
    return found[0] if found else None


def require_images(data: Path, domain: str) -> tuple[Path, Path]:
    """As `find_images`, for one domain.

    Raises:
        UserError: If it is not there; of others that are, it says how to use them.
    """
    if found := find_images(data, [domain]):
        return found
    where = "see: bash scripts/data.sh pacs"
    if found := find_images(data, DOMAINS):
        there = [name for name in DOMAINS if (found[1] / name).is_dir()]
        raise UserError(
            f"PACSDomain: no {domain} at {found[1] / domain}, but {' and '.join(there)}; "
            f"write DATASET.DOMAIN {there[0]}, or {where}"
        )
    raise UserError(
        f"PACSDomain: no {domain} at {data / FOLDERS[0] / domain}; {where}, or set DATA to the folder that has it"
    )


def split_items(items: Items, images: Path) -> tuple[Items, Items, Items]:
    """Split a domain's images within each class; the same for every layout, for it goes by paths below `images`."""
    by_path = {Path(item.impath).relative_to(images).as_posix(): item for item in items}
    split = split_by_class((path, item.label, item.classname) for path, item in by_path.items())
    train, val, test = ([by_path[path] for path, _, _ in split[part]] for part in ("train", "val", "test"))
    return train, val, test
