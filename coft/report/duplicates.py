"""Duplicate images: files of equal content, and images that are nearly equal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from coft.core.threads import map_threaded

from .thumbnails import looks

ALIKE = 0.95  # cosine of the frozen CLIP's features from which the looks of two images are compared
SAME = 6  # bits of the hash of 64 bits in which near duplicates differ at most
PAIRS = 500  # most pairs that are compared


def equal_groups(copies: pd.DataFrame) -> list[list[str]]:
    """Paths of files of equal content, the largest groups first.

    Args:
        copies: The table `duplicates.csv`.
    """
    groups = [list(paths) for _, paths in copies.groupby("group", sort=False)["path"]]
    return sorted(groups, key=lambda paths: -len(paths))


def near_groups(
    paths: list[str],
    nearest: np.ndarray,
    likeness: np.ndarray,
    hash_looks: Callable[[str], np.ndarray | None] = looks,
) -> list[list[int]]:
    """Images that are nearly equal: alike to the frozen CLIP, and with almost the same hash of their looks.

    Args:
        paths: Paths of all images.
        nearest: Index of the most alike other image of each image. Shape (N,).
        likeness: Cosine of each image with that other image. Shape (N,).
        hash_looks: Computes the hash of an image's looks from its path.

    Returns:
        Indices of the images of each group, the most alike group first.
    """
    pairs = alike_pairs(nearest, likeness)
    candidates = sorted({index for pair in pairs for index in pair})
    candidate_hashes = map_threaded(hash_looks, [paths[index] for index in candidates], "report: duplicates")
    hashes = dict(zip(candidates, candidate_hashes, strict=True))
    near_pairs = [pair for pair in pairs if _look_alike(hashes[pair[0]], hashes[pair[1]])]
    return connected_groups(near_pairs)


def alike_pairs(nearest: np.ndarray, likeness: np.ndarray) -> list[tuple[int, int]]:
    """At most `PAIRS` pairs of alike images, each once, the most alike first."""
    order = np.argsort(-likeness, kind="stable")
    pairs = [(min(i, j), max(i, j)) for i, j in ((int(i), int(nearest[i])) for i in order if likeness[i] >= ALIKE)]
    return list(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1]))[:PAIRS]


def _look_alike(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    return first is not None and second is not None and int((first != second).sum()) <= SAME


def connected_groups(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Groups of indices that pairs connect, in the order of their first pairs."""
    from scipy.sparse import coo_array  # takes long, and a run imports this file at its start
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return []
    node_of = {index: node for node, index in enumerate(dict.fromkeys(index for pair in pairs for index in pair))}
    rows, columns = zip(*((node_of[first], node_of[second]) for first, second in pairs), strict=True)
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(node_of), len(node_of)))
    groups: dict[int, list[int]] = {}
    for index, group in zip(node_of, connected_components(graph, directed=False)[1], strict=True):
        groups.setdefault(int(group), []).append(index)
    return [sorted(group) for group in groups.values()]
