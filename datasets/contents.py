"""Choose images by their content, so that names and order of the files do not matter."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from coft.core.errors import UserError
from coft.core.threads import map_threaded
from coft.images.reading import read_bytes
from dassl.data.datasets import Datum

log = logging.getLogger(__name__)


def content_hashes(paths: Sequence[str]) -> list[str]:
    """Compute the SHA-256 of each file, in hexadecimal.

    Raises:
        UserError: If a file cannot be read.
    """
    return list(map_threaded(lambda path: hashlib.sha256(read_bytes(path)).hexdigest(), paths, "hash images"))


def choose_pool(items: Sequence[Datum], section: Any, classnames: Sequence[str]) -> list[Datum]:
    """Choose the pool, the unlabeled images, by the settings in the section DATASET.

    Args:
        items: Images to choose from. The chosen images keep their order.
        section: Section DATASET; NUM_UNLABELED, POOL and RATIO are read. The config of another plugin may lack them.
        classnames: Class names by label.

    Raises:
        UserError: If there are too few images.
    """
    count: int = getattr(section, "NUM_UNLABELED", 0)
    pool: int = getattr(section, "POOL", 1)
    ratio: float = getattr(section, "RATIO", 1.0)
    if ratio > 1:
        return unbalanced(items, count, pool, ratio, classnames)
    if pool > 1 and not 0 < pool * count <= len(items):
        raise UserError(
            f"DATASET.POOL is {pool}: {len(items)} images are no {pool} pools of DATASET.NUM_UNLABELED, which is "
            f"{count}; expected fewer, or a NUM_UNLABELED"
        )
    before = first_by_content(items, (pool - 1) * count) if pool > 1 else []
    chosen = first_by_content(items, pool * count)
    taken = {id(item) for item in before}
    return [item for item in chosen if id(item) not in taken]


def unbalanced(items: Sequence[Datum], count: int, pool: int, ratio: float, classnames: Sequence[str]) -> list[Datum]:
    """Choose a long-tailed pool by labels, for experiments with unbalanced classes.

    The r-th of C classes, counted from 0, has ratio^(-r / (C - 1)) times as many images as the first. The order of the
    classes depends on their names and on `pool`. Within a class the first images by content hash are taken.

    Args:
        items: Images to choose from. The chosen images keep their order.
        count: Approximate number of images; 0 for as many as possible.
        pool: Number that determines the order of the classes.
        ratio: Ratio of the sizes of the largest and the smallest class.
        classnames: Class names by label.

    Raises:
        UserError: If a class has too few images.
    """
    order = sorted(range(len(classnames)), key=lambda c: hashlib.sha256(f"{pool} {classnames[c]}".encode()).digest())
    shares = {c: ratio ** (-r / max(1, len(order) - 1)) for r, c in enumerate(order)}
    members = {c: [item for item in items if item.label == c] for c in order}
    most = min(len(members[c]) / share for c, share in shares.items())
    wanted = count / sum(shares.values()) if count else most
    if wanted > most or most < 1:
        raise UserError(
            f"DATASET.RATIO {ratio:g}: the classes have too few images for DATASET.NUM_UNLABELED {count}; expected at "
            f"most {int(most * sum(shares.values()))}"
        )
    kept = {
        id(item) for c, share in shares.items() for item in first_by_content(members[c], max(1, round(wanted * share)))
    }
    return [item for item in items if id(item) in kept]


def first_by_content(items: Sequence[Datum], count: int, key: str = "NUM_UNLABELED") -> list[Datum]:
    """Choose the first images in the order of their content hashes, which does not depend on labels or paths.

    Args:
        items: Images to choose from. The chosen images keep their order.
        count: Number of images; 0 for all.
        key: Key of this number in the section DATASET, for the error message.

    Raises:
        UserError: If `count` is negative.
    """
    if count < 0:
        raise UserError(f"DATASET.{key} is {count}; expected a number of images, or 0 for all")
    if count > len(items):
        log.info("DATASET.%s is %d: all %d images are taken", key, count, len(items))
    if not 0 < count < len(items):
        return list(items)
    hashes = content_hashes([item.impath for item in items])
    kept = set(sorted(range(len(items)), key=hashes.__getitem__)[:count])
    return [item for i, item in enumerate(items) if i in kept]
