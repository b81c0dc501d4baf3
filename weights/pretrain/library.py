"""Library of all training drawings, with their concepts and sampling weights."""

import json
import logging
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from weights.pretrain.augment import Drawings
from weights.pretrain.heldout import heldout_shelves
from weights.pretrain.names import concept
from weights.pretrain.near_duplicates import appearance, has_twin, perceptual_hashes
from weights.pretrain.packages import install, of_role
from weights.pretrain.render import Shelf, shelves

logger = logging.getLogger(__name__)

SHARES = {"icons": 0.70, "emoji": 0.14, "digits": 0.09, "letters": 0.07}  # shares of the drawings in a batch
COMMON = 3  # concepts with fewer drawings, mostly unusual names, are drawn half as often


@dataclass(frozen=True)
class Library:
    """All training drawings.

    Attributes:
        shelves: Pixels of each package.
        concepts: Words of each concept.
        kinds: Kind of each concept: "icon", "digit" or "letter".
        shelf: Index of the shelf of each of N drawings, int ``[N]``.
        row: Row of each drawing in its shelf, int ``[N]``.
        label: Concept of each drawing, int ``[N]``.
    """

    shelves: list[Shelf]
    concepts: list[str]
    kinds: list[str]
    shelf: np.ndarray
    row: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def weights(self) -> torch.Tensor:
        """Sampling weights of the drawings, float64 ``[N]``. A concept's weight grows sublinearly with its drawings."""
        count = np.bincount(self.label, minlength=len(self.concepts))
        weight = count[self.label] ** -0.3
        weight[count[self.label] < COMMON] *= 0.5
        group = self._groups()
        for name, share in SHARES.items():
            weight[group == name] *= share / max(weight[group == name].sum(), 1e-12)
        return torch.from_numpy(weight)

    def _groups(self) -> np.ndarray:
        """Return the key of ``SHARES`` for each drawing, ``[N]``."""
        roles = np.array([shelf.role for shelf in self.shelves])[self.shelf]
        digit = np.array([kind == "digit" for kind in self.kinds])[self.label]
        return np.where(roles != "fonts", roles, np.where(digit, "digits", "letters"))

    def take(self, drawings: torch.Tensor) -> Drawings:
        """Return the drawings with given indices, int ``[B]``."""
        indices = drawings.numpy()
        opacity = np.empty((len(indices), 2, 64, 64), np.uint8)
        paint = np.zeros((len(indices), 3, 64, 64), np.uint8)
        drawing_shelves = [self.shelves[shelf] for shelf in self.shelf[indices]]
        for index, (shelf, row) in enumerate(zip(drawing_shelves, self.row[indices], strict=True)):
            opacity[index] = shelf.opacity[row]
            if shelf.colour is not None:
                paint[index] = shelf.colour[row]
        channels = torch.from_numpy(opacity).float() / 255
        line, silhouette = channels[:, :1], channels[:, 1:]
        coloured = torch.tensor([shelf.colour is not None for shelf in drawing_shelves])
        glyph = torch.tensor([shelf.role == "fonts" for shelf in drawing_shelves])
        return Drawings(torch.from_numpy(paint).float() / 255 * line, line, silhouette, coloured, glyph)


def open_library(cache_dir: Path) -> tuple[Library, dict[str, int]]:
    """Install, render and filter all drawings.

    Returns:
        The library, and the number of removed near-duplicates of held-out drawings, by held-out data set.
    """
    packages = of_role("icons", "emoji", "fonts")
    install(cache_dir, packages)
    all_shelves = shelves(packages, cache_dir)
    kept, near_duplicates = without_twins(all_shelves, cache_dir)
    return collect(all_shelves, kept), near_duplicates


def without_twins(all_shelves: list[Shelf], cache_dir: Path) -> tuple[list[np.ndarray], dict[str, int]]:
    """Find near-duplicates of held-out drawings.

    Returns:
        For each shelf the mask of rows that are not near-duplicates, bool ``[N]``; and the number of near-duplicates
        by held-out data set.
    """
    hashes_by_shelf = [perceptual_hashes(appearance(shelf)) for shelf in all_shelves]
    kept: list[np.ndarray] = [np.ones(len(shelf), bool) for shelf in all_shelves]
    counts = {}
    for name in ("icons", "emoji"):
        heldout = [shelf for shelf in heldout_shelves(name, cache_dir) if len(shelf)]
        heldout_hashes = np.concatenate([perceptual_hashes(appearance(shelf)) for shelf in heldout])
        pairs = zip(all_shelves, hashes_by_shelf, strict=True)
        near_duplicates = [has_twin(hashes, heldout_hashes) & (shelf.role != "fonts") for shelf, hashes in pairs]
        kept = [rows & ~twin for rows, twin in zip(kept, near_duplicates, strict=True)]
        counts[name] = int(sum(twin.sum() for twin in near_duplicates))
    logger.info("near-duplicates of held-out drawings taken out of training: %s", counts)
    return kept, counts


def collect(all_shelves: list[Shelf], kept: list[np.ndarray]) -> Library:
    """Build a library from the kept rows of all shelves."""
    rows = [(number, row) for number, keep in enumerate(kept) for row in np.flatnonzero(keep)]
    drawings = [(number, row, _words(all_shelves[number], all_shelves[number].names[row])) for number, row in rows]
    drawings = [drawing for drawing in drawings if not drawing[2].startswith("brand ")]
    concepts = sorted({words for _, _, words in drawings})
    concept_numbers = {words: number for number, words in enumerate(concepts)}
    kinds = [_kind(words) for words in concepts]
    columns = zip(*((shelf, row, concept_numbers[words]) for shelf, row, words in drawings), strict=True)
    return Library(all_shelves, concepts, kinds, *(np.array(column) for column in columns))


def _words(shelf: Shelf, name: str) -> str:
    return name.lower() if shelf.role == "fonts" else concept(name)


def _kind(words: str) -> str:
    if len(words) > 1 or not words.isascii():
        return "icon"
    return "digit" if words.isdigit() else "letter"


def read_aliases(cache_dir: Path, concepts: set[str]) -> dict[str, list[str]]:
    """Read other names of concepts from the metadata of Material Design Icons."""
    packages = of_role("aliases")
    install(cache_dir, packages)
    aliases: dict[str, Counter[str]] = {}
    for icon in json.loads((packages[0].folder(cache_dir) / "meta.json").read_text()):
        words = concept(icon["name"])
        others = {concept(alias) for alias in icon["aliases"]} - {words, ""}
        if words in concepts:
            aliases.setdefault(words, Counter()).update(sorted(others))  # sorted, for a fixed order of equal counts
    return {words: [other for other, _ in counts.most_common(6)] for words, counts in aliases.items()}
