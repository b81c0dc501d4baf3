"""Tokenizers, which convert texts to token ids."""

from __future__ import annotations

from typing import Protocol

from clip.simple_tokenizer import SimpleTokenizer

BPE = SimpleTokenizer()  # one for all, since it takes a tenth of a second to build


class Tokenizer(Protocol):
    """Interface of a tokenizer.

    Attributes:
        start: Token ids before every text.
        end: Token ids after every text.
        pad: Token id for padding to the context length.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without start and end tokens."""

    def continued(self, *parts: str) -> list[list[int]]:
        """Return the token ids of each part of a text that follows other words. Parts are joined without blanks."""


class ClipTokenizer:
    """CLIP's tokenizer. It splits a text into words first, so the tokens of a part do not depend on its context."""

    pad = 0
    start: tuple[int, ...] = (BPE.encoder["<|startoftext|>"],)
    end: tuple[int, ...] = (BPE.encoder["<|endoftext|>"],)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without start and end tokens."""
        return BPE.encode(text)

    def continued(self, *parts: str) -> list[list[int]]:
        """Return the token ids of each part of a text."""
        return [self.encode(part) for part in parts]


CLIP_TOKENIZER: Tokenizer = ClipTokenizer()
