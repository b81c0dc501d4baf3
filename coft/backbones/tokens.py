"""Tokenizers: text to the numbers of its tokens."""

from __future__ import annotations

from typing import Protocol

from clip.simple_tokenizer import SimpleTokenizer


class Tokenizer(Protocol):
    """What prompts ask of a tokenizer.

    Attributes:
        start: Tokens before every text.
        end: Tokens after it.
        pad: What fills up a text to the length that an encoder reads.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without those of start and end."""

    def continued(self, *parts: str) -> list[list[int]]:
        """Tokens of each part of a text that has other words before it."""


class ClipTokenizer:
    """CLIP's own tokenizer. Words are apart in it, so that a text's parts have the tokens that they have alone."""

    pad = 0

    def __init__(self) -> None:
        self._own = SimpleTokenizer()
        self.start: tuple[int, ...] = (self._own.encoder["<|startoftext|>"],)
        self.end: tuple[int, ...] = (self._own.encoder["<|endoftext|>"],)

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer`."""
        return self._own.encode(text)

    def continued(self, *parts: str) -> list[list[int]]:
        """See `Tokenizer`."""
        return [self.encode(part) for part in parts]


CLIP_TOKENIZER: Tokenizer = ClipTokenizer()
