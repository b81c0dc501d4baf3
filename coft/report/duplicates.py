"""Duplicate images: files with identical content, and near duplicates."""

from __future__ import annotations

import numpy as np
import pandas as pd

from coft.core.threads import map_threaded

from .thumbnails import difference_hash

MIN_COSINE = 0.95  # least cosine of the frozen CLIP's features for two images whose perceptual hashes are compared
MAX_HASH_DISTANCE = 6  # upper bound of the bits, of 64, in which the hashes of near duplicates differ
MAX_PAIRS = 500  # upper bound of the pairs that are compared


def equal_groups(copies: pd.DataFrame) -> list[list[str]]:
    """Return the paths of files with identical content, by group, the largest group first.

    Args:
        copies: The table `duplicates.csv`.
    """
    groups = [list(paths) for _, paths in copies.groupby("group", sort=False)["path"]]
    return sorted(groups, key=lambda paths: -len(paths))


def near_groups(paths: list[str], nearest: np.ndarray, likeness: np.ndarray) -> list[list[int]]:
    """Find groups of near duplicates: similar to the frozen CLIP, and with almost the same perceptual hash.

    Args:
        paths: Paths of all images.
        nearest: Index of each image's nearest other image. Shape (N,).
        likeness: Cosine similarity of each image and that other image. Shape (N,).

    Returns:
        Indices of the images in each group, the group with the most similar pair first.
    """
    pairs = alike_pairs(nearest, likeness)
    candidates = sorted({index for pair in pairs for index in pair})
    candidate_hashes = map_threaded(difference_hash, [paths[index] for index in candidates], "report: duplicates")
    hashes = dict(zip(candidates, candidate_hashes, strict=True))
    near_pairs = [pair for pair in pairs if _hashes_match(hashes[pair[0]], hashes[pair[1]])]
    return connected_groups(near_pairs)


def alike_pairs(nearest: np.ndarray, likeness: np.ndarray) -> list[tuple[int, int]]:
    """Return at most `MAX_PAIRS` pairs of images with a cosine of at least `MIN_COSINE`, the most similar first."""
    order = np.argsort(-likeness, kind="stable")
    pairs = [(min(i, j), max(i, j)) for i, j in ((int(i), int(nearest[i])) for i in order if likeness[i] >= MIN_COSINE)]
    return list(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1]))[:MAX_PAIRS]


def _hashes_match(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    return first is not None and second is not None and int((first != second).sum()) <= MAX_HASH_DISTANCE


def connected_groups(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Return the connected components of the pairs, in the order of their first pairs."""
    from scipy.sparse import coo_array  # imported here since it is slow, and every run imports this file at its start
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
