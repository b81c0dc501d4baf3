"""Tokenizers: from a text to its token ids."""

from __future__ import annotations

from typing import Protocol

from clip.simple_tokenizer import SimpleTokenizer


class Tokenizer(Protocol):
    """The interface of a tokenizer.

    Attributes:
        start: Token ids before every text.
        end: Token ids after every text.
        pad: Token id that fills up a text to the context length.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without those of start and end."""

    def continued(self, *parts: str) -> list[list[int]]:
        """Token ids of each part of a text that follows other words. The parts are joined without blanks."""


class ClipTokenizer:
    """The tokenizer of CLIP. It splits a text into words first, so a part has the same tokens as alone."""

    pad = 0

    def __init__(self) -> None:
        self._tokenizer = SimpleTokenizer()
        self.start: tuple[int, ...] = (self._tokenizer.encoder["<|startoftext|>"],)
        self.end: tuple[int, ...] = (self._tokenizer.encoder["<|endoftext|>"],)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without those of start and end."""
        return self._tokenizer.encode(text)

    def continued(self, *parts: str) -> list[list[int]]:
        """Token ids of each part of a text."""
        return [self.encode(part) for part in parts]


CLIP_TOKENIZER: Tokenizer = ClipTokenizer()
