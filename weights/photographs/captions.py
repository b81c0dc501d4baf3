"""Captions for training: names in many sentences, at many positions, after many kinds of contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from clip.simple_tokenizer import SimpleTokenizer
from torch import Tensor

POSITIONS = 77
LONGEST = 40  # largest number of tokens of a caption, start and end included
CONTEXT = 20  # largest number of tokens of a context
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of {}.",
    "{}",
    "{}.",
    "a {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "this is a {}.",
    "a close-up photo of a {}.",
    "a blurry photo of a {}.",
    "a bright photo of the {}.",
    "a low resolution photo of a {}.",
    "a cropped photo of the {}.",
    "a good photo of a {}.",
    "a photo of a large {}.",
    "a photo of a small {}.",
    "a drawing of a {}.",
    "a painting of a {}.",
    "a cartoon of a {}.",
    "a sketch of a {}.",
    "a satellite photo of {}.",
    "a scene of a {}.",
    "a {} in a scene.",
)
KINDS = ("a photo of a {}, a type of {}.", "a photo of a {}, a kind of {}.", "{}, a {}.", "a {} is a kind of {}.")
TOKENIZER = SimpleTokenizer()
START, END = TOKENIZER.encoder["<|startoftext|>"], TOKENIZER.encoder["<|endoftext|>"]


@dataclass(frozen=True)
class Entry:
    """A name or meaning from which captions are made.

    Attributes:
        name: Token ids of its name.
        kind: Token ids of the name of its kind; empty if captions do not mention it.
        gloss: Token ids of its definition; empty if captions do not mention it.
        target: Row index into the teacher's directions.
    """

    name: tuple[int, ...]
    kind: tuple[int, ...]
    gloss: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class Batch:
    """Captions of about the same length.

    Attributes:
        tokens: Token ids; 0 after the end mark. Shape (n, length).
        positions: Position of each token, increasing. Shape (n, length).
        noise: Mask of the tokens that are replaced by random vectors. Shape (n, length), bool.
        ends: Index of the end mark. Shape (n,).
        targets: Target of each caption, such as its row in the teacher's directions. Shape (n,).
    """

    tokens: Tensor
    positions: Tensor
    noise: Tensor
    ends: Tensor
    targets: Tensor


def tokens_of(text: str) -> tuple[int, ...]:
    """Tokenize a text for CLIP, without start and end marks."""
    return tuple(TOKENIZER.encode(text))


_HALVES = [tuple(map(tokens_of, template.split("{}"))) for template in TEMPLATES]
_THIRDS = [tuple(map(tokens_of, template.split("{}"))) for template in KINDS]
_STOP = tokens_of(".")
Row = tuple[list[int], int, int]  # token ids, number of tokens after the start mark to replace by noise, target


def caption(entry: Entry, source: torch.Generator) -> Row:
    """Draw a random caption of an entry."""
    form, pick, tail = torch.rand(3, generator=source).tolist()
    noisy = 0
    if entry.gloss and form < 0.5:
        words = (*entry.name, *tokens_of(","), *entry.gloss) if pick < 0.7 else entry.gloss
    elif entry.kind:
        first, second, third = _THIRDS[int(pick * len(_THIRDS))]
        words = (*first, *entry.name, *second, *entry.kind, *third)
    elif form < 0.65:
        before, after = _HALVES[int(pick * len(_HALVES))]
        words = (*before, *entry.name, *after)
    else:
        before, noisy, after = _context(source)
        words = (*before, *entry.name, *after, *(_STOP if tail < 0.5 else ()))
    words = words[: LONGEST - 2]
    return [START, *words, END], min(noisy, len(words)), entry.target


def _context(source: torch.Generator) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """Draw a substitute for a learned context: noise, random words, or one repeated word.

    Returns:
        Tokens before the name, number of them to replace by noise, and tokens after the name.
    """
    kind, length, split = torch.rand(3, generator=source).tolist()
    count = 1 + int(length * length * CONTEXT)
    different = count if kind < 0.35 else 1
    words = tuple(torch.randint(START, (different,), generator=source).tolist()) * (count // different)
    if kind > 0.55:
        return words, count, ()
    cut = count if split < 0.6 else int((split - 0.6) / 0.4 * count)
    return words[:cut], 0, words[cut:]


def batches(entries: Sequence[Entry], weights: Tensor, size: int, number: int, source: torch.Generator) -> list[Batch]:
    """Draw batches of captions, in random order. The captions of a batch have about the same length.

    Args:
        entries: Names and meanings from which captions are made.
        weights: Sampling weight of each entry. Shape (number of entries,).
        size: Number of captions per batch.
        number: Number of batches.
        source: Source of all random numbers.
    """
    indices = torch.multinomial(weights, size * number, replacement=True, generator=source).tolist()
    rows = sorted((caption(entries[i], source) for i in indices), key=lambda row: len(row[0]))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    batches = [batch(part, max(len(tokens) for tokens, *_ in part), 0.25, source) for part in parts]
    return [batches[i] for i in torch.randperm(number, generator=source).tolist()]


def batch(rows: Sequence[Row], length: int, late: float, source: torch.Generator) -> Batch:
    """Pad captions to a length, and draw their positions.

    Args:
        rows: Captions.
        length: Number of tokens of the longest one, or more.
        late: Share of the captions that begin at a later position after the start mark, as after a longer context.
        source: Source of all random numbers.
    """
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    noise = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, (row, noisy, _) in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        noise[i, 1 : 1 + noisy] = True
    offset = torch.randint(POSITIONS - length + 1, (len(rows), 1), generator=source)
    offset = offset * (torch.rand(len(rows), 1, generator=source) < late)
    positions = torch.arange(length).repeat(len(rows), 1) + offset
    positions[:, 0] = 0
    ends = torch.tensor([len(row) - 1 for row, *_ in rows])
    return Batch(tokens, positions, noise, ends, torch.tensor([target for *_, target in rows]))
