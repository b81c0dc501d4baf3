"""The training collection: every drawing that pre-training may see, with its concept and how often to draw it."""

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
from weights.pretrain.packages import install, of_role
from weights.pretrain.render import Shelf, shelves
from weights.pretrain.twins import appearance, has_twin, perceptual_hashes

logger = logging.getLogger(__name__)

SHARES = {"icons": 0.70, "emoji": 0.14, "digits": 0.09, "letters": 0.07}  # of the drawings of a batch
COMMON = 3  # concepts with fewer drawings are drawn half as often: mostly names that nobody would say


@dataclass(frozen=True)
class Library:
    """All training drawings.

    Attributes:
        shelves: Where the pixels are.
        concepts: The words of each concept.
        kinds: "icon", "digit" or "letter" for each concept.
        shelf: For each of N drawings the number of its shelf, int ``[N]``.
        row: ... its row there, int ``[N]``.
        label: ... its concept, int ``[N]``.
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
        """How often each drawing is drawn, float64 ``[N]``: concepts with many drawings more, but not in proportion."""
        count = np.bincount(self.label, minlength=len(self.concepts))
        weight = count[self.label] ** -0.3
        weight[count[self.label] < COMMON] *= 0.5
        group = self._groups()
        for name, share in SHARES.items():
            weight[group == name] *= share / max(weight[group == name].sum(), 1e-12)
        return torch.from_numpy(weight)

    def _groups(self) -> np.ndarray:
        """The key of ``SHARES`` that each drawing belongs to."""
        roles = np.array([shelf.role for shelf in self.shelves])[self.shelf]
        digit = np.array([kind == "digit" for kind in self.kinds])[self.label]
        return np.where(roles != "fonts", roles, np.where(digit, "digits", "letters"))

    def take(self, drawings: torch.Tensor) -> Drawings:
        """The pixels of these drawings."""
        numbers = drawings.numpy()
        opacity = np.empty((len(numbers), 2, 64, 64), np.uint8)
        paint = np.zeros((len(numbers), 3, 64, 64), np.uint8)
        chosen = [self.shelves[shelf] for shelf in self.shelf[numbers]]
        for index, (shelf, row) in enumerate(zip(chosen, self.row[numbers], strict=True)):
            opacity[index] = shelf.opacity[row]
            if shelf.colour is not None:
                paint[index] = shelf.colour[row]
        channels = torch.from_numpy(opacity).float() / 255
        line, silhouette = channels[:, :1], channels[:, 1:]
        coloured = torch.tensor([shelf.colour is not None for shelf in chosen])
        glyph = torch.tensor([shelf.role == "fonts" for shelf in chosen])
        return Drawings(torch.from_numpy(paint).float() / 255 * line, line, silhouette, coloured, glyph)


def open_library(cache_dir: Path) -> tuple[Library, dict[str, int]]:
    """Install, render and filter everything.

    Returns:
        The library, and how many near-duplicates of held-out drawings were taken out, by data set.
    """
    packages = of_role("icons", "emoji", "fonts")
    install(cache_dir, packages)
    found = shelves(packages, cache_dir)
    kept, twins = without_twins(found, cache_dir)
    return collect(found, kept), twins


def without_twins(found: list[Shelf], cache_dir: Path) -> tuple[list[np.ndarray], dict[str, int]]:
    """For each shelf, which rows look like no held-out drawing, bool ``[N]``; and the count of others."""
    own = [perceptual_hashes(appearance(shelf)) for shelf in found]
    kept: list[np.ndarray] = [np.ones(len(shelf), bool) for shelf in found]
    counts = {}
    for name in ("icons", "emoji"):
        held = [perceptual_hashes(appearance(s)) for s in heldout_shelves(name, cache_dir) if len(s)]
        held_hashes = np.concatenate(held)
        twins = [has_twin(hashes, held_hashes) & (s.role != "fonts") for s, hashes in zip(found, own, strict=True)]
        kept = [rows & ~twin for rows, twin in zip(kept, twins, strict=True)]
        counts[name] = int(sum(twin.sum() for twin in twins))
    logger.info("near-duplicates of held-out drawings taken out of training: %s", counts)
    return kept, counts


def collect(found: list[Shelf], kept: list[np.ndarray]) -> Library:
    """Number the concepts of the kept rows of all shelves."""
    rows = [(number, row) for number, keep in enumerate(kept) for row in np.flatnonzero(keep)]
    places = [(number, row, _words(found[number], found[number].names[row])) for number, row in rows]
    places = [place for place in places if not place[2].startswith("brand ")]
    concepts = sorted({words for _, _, words in places})
    number_of = {words: number for number, words in enumerate(concepts)}
    kinds = [_kind(words) for words in concepts]
    columns = zip(*((shelf, row, number_of[words]) for shelf, row, words in places), strict=True)
    return Library(found, concepts, kinds, *(np.array(column) for column in columns))


def _words(shelf: Shelf, name: str) -> str:
    return name.lower() if shelf.role == "fonts" else concept(name)


def _kind(words: str) -> str:
    if len(words) > 1 or not words.isascii():
        return "icon"
    return "digit" if words.isdigit() else "letter"


def read_aliases(cache_dir: Path, concepts: set[str]) -> dict[str, list[str]]:
    """Other names of concepts, as Material Design Icons lists them."""
    packages = of_role("aliases")
    install(cache_dir, packages)
    aliases: dict[str, Counter[str]] = {}
    for icon in json.loads((packages[0].folder(cache_dir) / "meta.json").read_text()):
        words = concept(icon["name"])
        others = {concept(alias) for alias in icon["aliases"]} - {words, ""}
        if words in concepts:
            aliases.setdefault(words, Counter()).update(sorted(others))  # sorted: equal counts keep their order
    return {words: [other for other, _ in found.most_common(6)] for words, found in aliases.items()}
