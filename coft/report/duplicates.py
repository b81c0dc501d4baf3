"""Images that are there more than once: with equal content, or nearly so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from coft.core.threads import map_threaded

from .thumbnails import looks

ALIKE = 0.95  # cosine of the frozen CLIP's features, from which two images are compared by their looks
SAME = 6  # of 64 bits of the looks, which near duplicates differ in at most
PAIRS = 500  # that are compared, at most: the most alike ones


def equal_groups(copies: pd.DataFrame) -> list[list[str]]:
    """Paths of images of equal content, from `duplicates.csv`; the largest groups first."""
    groups = [list(paths) for _, paths in copies.groupby("group", sort=False)["path"]]
    return sorted(groups, key=lambda paths: -len(paths))


def near_groups(
    paths: list[str],
    nearest: np.ndarray,
    likeness: np.ndarray,
    look: Callable[[str], np.ndarray | None] = looks,
) -> list[list[int]]:
    """Images that are nearly equal: alike to the frozen CLIP, and with the same looks.

    Args:
        paths: Of all images.
        nearest: The most alike other one of each. Shape (N,).
        likeness: Cosine of the two. Shape (N,).
        look: Gives the hash of an image's looks.

    Returns:
        Places of the images of each group, the most alike group first.
    """
    pairs = alike_pairs(nearest, likeness)
    some = sorted({place for pair in pairs for place in pair})
    hashes = dict(zip(some, map_threaded(look, [paths[place] for place in some], "report: duplicates"), strict=True))
    same = [pair for pair in pairs if _same(hashes[pair[0]], hashes[pair[1]])]
    return joined(same)


def alike_pairs(nearest: np.ndarray, likeness: np.ndarray) -> list[tuple[int, int]]:
    """The most alike pairs, each once, the most alike first."""
    order = np.argsort(-likeness, kind="stable")
    pairs = [(min(i, j), max(i, j)) for i, j in ((int(i), int(nearest[i])) for i in order if likeness[i] >= ALIKE)]
    return list(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1]))[:PAIRS]


def _same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    return first is not None and second is not None and int((first != second).sum()) <= SAME


def joined(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Groups that pairs make; in the order of their first pairs."""
    if not pairs:
        return []
    known = {place: number for number, place in enumerate(dict.fromkeys(p for pair in pairs for p in pair))}
    rows, columns = zip(*((known[a], known[b]) for a, b in pairs), strict=True)
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(known), len(known)))
    groups: dict[int, list[int]] = {}
    for place, group in zip(known, connected_components(graph, directed=False)[1], strict=True):
        groups.setdefault(int(group), []).append(place)
    return [sorted(group) for group in groups.values()]
