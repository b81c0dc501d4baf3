"""Images with labels, and the base class of data sets."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["DatasetBase", "Datum"]


class Datum:
    """An image file with its label.

    Pickled splits of other plugins refer to this class, its module and its attributes, which must therefore not change.

    Args:
        impath: Path of the image.
        label: Label of the image.
        domain: Index of its domain.
        classname: Name of its class.

    Raises:
        AssertionError: If the path is not a string, or there is no such file.
    """

    def __init__(self, impath: str = "", label: int = 0, domain: int = 0, classname: str = "") -> None:
        if not isinstance(impath, str):
            raise AssertionError(f"impath is {impath!r}; expected a string")
        if not Path(impath).is_file():
            raise AssertionError(f'No file found at "{impath}"')
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self) -> str:
        """Path of the image."""
        return self._impath

    @property
    def label(self) -> int:
        """Label of the image."""
        return self._label

    @property
    def domain(self) -> int:
        """Index of its domain."""
        return self._domain

    @property
    def classname(self) -> str:
        """Name of its class."""
        return self._classname


class DatasetBase:
    """Base class of data sets. Classes and their names are those of `train_x` only.

    Args:
        train_x: Labelled training images.
        train_u: Unlabelled training images, or None.
        val: Validation images, or None.
        test: Test images.
    """

    dataset_dir = ""  # folder of the data set below DATASET.ROOT
    domains: Sequence[str] = []

    def __init__(
        self,
        train_x: Sequence[Datum] | None = None,
        train_u: Sequence[Datum] | None = None,
        val: Sequence[Datum] | None = None,
        test: Sequence[Datum] | None = None,
    ) -> None:
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x or [])
        self._lab2cname, self._classnames = self.get_lab2cname(train_x or [])

    @property
    def train_x(self) -> Sequence[Datum] | None:
        """Labelled training images."""
        return self._train_x

    @property
    def train_u(self) -> Sequence[Datum] | None:
        """Unlabelled training images."""
        return self._train_u

    @property
    def val(self) -> Sequence[Datum] | None:
        """Validation images."""
        return self._val

    @property
    def test(self) -> Sequence[Datum] | None:
        """Test images."""
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class names by label."""
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        """Names of the classes with an image, in the order of their labels."""
        return self._classnames

    @property
    def num_classes(self) -> int:
        """The highest label plus one."""
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source: Iterable[Datum]) -> int:
        """Count classes: the highest label plus one."""
        return max((item.label for item in data_source), default=-1) + 1

    @staticmethod
    def get_lab2cname(data_source: Iterable[Datum]) -> tuple[dict[int, str], list[str]]:
        """Return class names by label, and a list of them in the order of labels."""
        mapping = {item.label: item.classname for item in data_source}
        return mapping, [mapping[label] for label in sorted(mapping)]

    def check_input_domains(self, source_domains: Sequence[str], target_domains: Sequence[str]) -> None:
        """Check that source and target domains are given and known.

        Raises:
            ValueError: If there are none, or one is unknown.
        """
        for key, names in (("SOURCE_DOMAINS", source_domains), ("TARGET_DOMAINS", target_domains)):
            if not names:
                raise ValueError(f"DATASET.{key} is empty; expected some of {list(self.domains)}")
            self.is_input_domain_valid(names)

    def is_input_domain_valid(self, input_domains: Iterable[str]) -> None:
        """Check that domains are known.

        Raises:
            ValueError: If one is not; the message names the first.
        """
        for domain in input_domains:
            if domain not in self.domains:
                raise ValueError(f"Input domain must belong to {list(self.domains)}, but got [{domain}]")

    def generate_fewshot_dataset(
        self, *data_sources: Sequence[Datum], num_shots: int = -1, repeat: bool = False
    ) -> Any:
        """Draw a few images of each class, with Python's global generator.

        Args:
            *data_sources: Lists of images.
            num_shots: Number of images per class; all images if it is below 1.
            repeat: Whether classes with fewer images are sampled with replacement; else all their images are taken.

        Returns:
            A list of images for one source, a list of lists for several.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        print(f"Creating a {num_shots}-shot dataset")
        drawn = [self._few_shots(source, num_shots, repeat) for source in data_sources]
        return drawn[0] if len(drawn) == 1 else drawn

    def _few_shots(self, source: Sequence[Datum], num_shots: int, repeat: bool) -> list[Datum]:
        chosen: list[Datum] = []
        for items in self.split_dataset_by_label(source).values():
            if len(items) >= num_shots:
                chosen += random.sample(items, num_shots)
            else:
                chosen += random.choices(items, k=num_shots) if repeat else items
        return chosen

    def split_dataset_by_label(self, data_source: Iterable[Datum]) -> defaultdict[int, list[Datum]]:
        """Group images by label."""
        return _group(data_source, lambda item: item.label)

    def split_dataset_by_domain(self, data_source: Iterable[Datum]) -> defaultdict[int, list[Datum]]:
        """Group images by domain."""
        return _group(data_source, lambda item: item.domain)


def _group(items: Iterable[Datum], key: Callable[[Datum], int]) -> defaultdict[int, list[Datum]]:
    groups: defaultdict[int, list[Datum]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups
