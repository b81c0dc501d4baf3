"""Samplers, which determine the order of images."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from yacs.config import CfgNode

__all__ = ["RandomClassSampler", "RandomDomainSampler", "SeqDomainSampler", "build_sampler"]


class _GroupedSampler(Sampler[int]):
    """A sampler that draws batches from groups of images; its length is that of a trial pass."""

    length: int

    def __init__(self, data_source: Sequence[Any], attribute: str) -> None:
        self.data_source = data_source
        self.groups: dict[int, list[int]] = defaultdict(list)
        for index, item in enumerate(data_source):
            self.groups[getattr(item, attribute)].append(index)

    def __len__(self) -> int:
        return self.length


class RandomDomainSampler(_GroupedSampler):
    """Sampler of batches with equally many images from each of some random domains, each image at most once.

    An epoch ends as soon as a domain has too few images left for another batch.

    Args:
        data_source: Images with a `domain`.
        batch_size: Number of images per batch.
        n_domain: Number of domains per batch; all domains if it is below 1.

    Raises:
        ValueError: If the batch cannot be divided evenly, or there are too few domains.
    """

    def __init__(self, data_source: Sequence[Any], batch_size: int, n_domain: int = 0) -> None:
        super().__init__(data_source, "domain")
        self.domains = list(self.groups)
        self.n_domain = n_domain if n_domain and n_domain > 0 else len(self.domains)
        if self.n_domain > len(self.domains):
            raise ValueError(f"N_DOMAIN is {n_domain}, but there are only {len(self.domains)} domains")
        if batch_size % self.n_domain:
            raise ValueError(f"BATCH_SIZE is {batch_size}, which is no multiple of the {self.n_domain} domains")
        self.n_img_per_domain = batch_size // self.n_domain
        self.length = sum(1 for _ in self)

    def choose(self) -> list[int]:
        """Choose the domains of a batch."""
        return random.sample(self.domains, self.n_domain)

    def __iter__(self) -> Iterator[int]:
        left = {domain: list(indices) for domain, indices in self.groups.items()}
        while all(len(indices) >= self.n_img_per_domain for indices in left.values()):
            for domain in self.choose():
                drawn = random.sample(left[domain], self.n_img_per_domain)
                yield from drawn
                taken = set(drawn)
                left[domain] = [index for index in left[domain] if index not in taken]


class SeqDomainSampler(RandomDomainSampler):
    """Sampler of batches with equally many images from every domain, in sorted order, each image at most once.

    Args:
        data_source: Images with a `domain`.
        batch_size: Number of images per batch.
    """

    def __init__(self, data_source: Sequence[Any], batch_size: int) -> None:
        super().__init__(data_source, batch_size)

    def choose(self) -> list[int]:
        """Return all domains."""
        return sorted(self.domains)


class RandomClassSampler(_GroupedSampler):
    """Sampler of batches with `n_ins` images from each of some random classes.

    A class with fewer images is sampled with replacement. An epoch ends when too few classes have images left.

    Args:
        data_source: Images with a `label`.
        batch_size: Number of images per batch.
        n_ins: Number of images per class in a batch.

    Raises:
        ValueError: If `n_ins` is larger than the batch, or there are too few classes.
    """

    def __init__(self, data_source: Sequence[Any], batch_size: int, n_ins: int) -> None:
        super().__init__(data_source, "label")
        if batch_size < n_ins:
            raise ValueError(f"BATCH_SIZE is {batch_size}, less than N_INS, which is {n_ins}")
        self.n_ins = n_ins
        self.ncls_per_batch = batch_size // n_ins
        if len(self.groups) < self.ncls_per_batch:
            raise ValueError(f"a batch needs {self.ncls_per_batch} classes, but there are only {len(self.groups)}")
        self.length = sum(1 for _ in self)

    def _portions(self, indices: list[int]) -> list[list[int]]:
        """Shuffle the images of a class and cut them into portions of `n_ins`."""
        if len(indices) < self.n_ins:
            return [random.choices(indices, k=self.n_ins)]
        shuffled = random.sample(indices, len(indices))
        return [shuffled[i : i + self.n_ins] for i in range(0, len(shuffled) - self.n_ins + 1, self.n_ins)]

    def __iter__(self) -> Iterator[int]:
        left = {label: self._portions(indices) for label, indices in self.groups.items()}
        while len(left) >= self.ncls_per_batch:
            for label in random.sample(list(left), self.ncls_per_batch):
                yield from left[label].pop(0)
                if not left[label]:
                    del left[label]


def build_sampler(
    sampler_type: str,
    cfg: CfgNode | None = None,
    data_source: Any = None,
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> Sampler[int]:
    """Build a sampler by name.

    Args:
        sampler_type: RandomSampler, SequentialSampler, RandomDomainSampler, SeqDomainSampler or RandomClassSampler.
        cfg: Not read; part of the API.
        data_source: Images to sample from.
        batch_size: Number of images per batch.
        n_domain: Number of domains per batch, for RandomDomainSampler.
        n_ins: Number of images per class in a batch, for RandomClassSampler.

    Raises:
        ValueError: If the name is unknown, or the sizes do not match.
    """
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    if sampler_type == "RandomDomainSampler":
        return RandomDomainSampler(data_source, batch_size, n_domain)
    if sampler_type == "SeqDomainSampler":
        return SeqDomainSampler(data_source, batch_size)
    if sampler_type == "RandomClassSampler":
        return RandomClassSampler(data_source, batch_size, n_ins)
    raise ValueError(f"Unknown sampler type: {sampler_type}")
