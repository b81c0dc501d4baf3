"""Captions: names of drawings in many prompts and at many positions, over a vocabulary of the tokens in use."""

from collections.abc import Iterable

import torch

from weights.photographs.captions import END, START, Batch, Row, batch, tokens_of
from weights.pretrain.names import spoken

CONTEXT_SHARE = 0.5  # share of prompts with a context, similar to a learned one, instead of a template
LENGTH = 32  # tokens of a training caption, start and end included
TEMPLATES = (
    "{}",
    "{}.",
    "a {}.",
    "the {}.",
    "a photo of a {}.",
    "a photo of {}.",
    "an icon of a {}.",
    "an icon of {}",
    "a picture of a {}.",
    "a drawing of a {}.",
    "a symbol of a {}.",
    "a {} icon.",
    "{} symbol",
    "an emoji of a {}.",
    "a picture showing {}",
)
GLYPH_TEMPLATES = {
    "digit": (
        "{}",
        "{}.",
        "the digit {}",
        "a photo of the digit {}.",
        "the number {}.",
        "a photo of the number {}.",
        "a photo of a {}.",
        "a handwritten {}.",
        "a photo of the number: {}.",
        "the figure {}",
        "digit {}.",
    ),
    "letter": ("{}", "the letter {}", "a photo of the letter {}.", "letter {}.", "a photo of a {}.", "character {}"),
}


class Captions:
    """Generator of random prompts for concepts.

    Args:
        concepts: Words of each concept, by index.
        aliases: Other words for some concepts, by the concept's words.
        kinds: Kind of each concept: "icon", "digit" or "letter".
    """

    def __init__(self, concepts: list[str], aliases: dict[str, list[str]], kinds: list[str]) -> None:
        self.variants = [_variants(words, aliases.get(words, [])) for words in concepts]
        self.kinds = kinds
        templates = {*TEMPLATES, *GLYPH_TEMPLATES["digit"], *GLYPH_TEMPLATES["letter"]}
        split = {template: tuple(tokens_of(part) for part in template.split("{}")) for template in templates}
        texts = sorted({text for variants in self.variants for text in variants})
        coded = {text: tokens_of(text) for text in texts}
        used = {token for tokens in coded.values() for token in tokens}
        used |= {token for halves in split.values() for half in halves for token in half}
        self.token_ids = sorted(used.union([START, END], tokens_of("x")))
        row = {token: index for index, token in enumerate(self.token_ids)}
        self.start, self.end = row[START], row[END]
        self._number = {text: index for index, text in enumerate(texts)}
        self._rows = {text: [row[token] for token in tokens] for text, tokens in coded.items()}
        self._halves = {t: tuple([row[token] for token in half] for half in halves) for t, halves in split.items()}

    def prompts(self, concepts: Iterable[int], generator: torch.Generator) -> Batch:
        """Draw a prompt for each concept. Tokens are indices into the vocabulary, and targets the ids of the texts."""
        return batch([self._prompt(concept, generator) for concept in concepts], LENGTH, 0.5, generator)

    def _prompt(self, concept: int, generator: torch.Generator) -> Row:
        """Draw token indices, the number of tokens after the start mark to replace by noise, and the id of the text."""
        chance = torch.rand(5, generator=generator).tolist()
        text = self._text(concept, chance[0], chance[1])
        before, after = self._template(concept, chance[2])
        noisy = False
        if chance[3] < CONTEXT_SHARE:
            before, noisy = self._context(generator)
            after = self._halves["{}."][1] if chance[4] < 0.5 else []
        words = self._rows[text][: LENGTH - 2 - len(after)]
        before = before[: LENGTH - 2 - len(after) - len(words)]
        return [self.start, *before, *words, *after, self.end], noisy * len(before), self._number[text]

    def _context(self, generator: torch.Generator) -> tuple[list[int], bool]:
        """Draw a substitute for a learned context: 1 to 20 random words or one repeated word.

        Returns:
            Token indices, and whether they are to be replaced by noise.
        """
        kind, length = torch.rand(2, generator=generator).tolist()
        count = int(length * 20) + 1
        different = count if kind < 0.4 else 1
        words = torch.randint(len(self.token_ids) - 2, (different,), generator=generator).tolist()
        return words * (count // different), kind > 0.7

    def _text(self, concept: int, chance: float, pick: float) -> str:
        variants = self.variants[concept]
        if len(variants) == 1 or chance < 0.6:
            return variants[0]
        return variants[1 + int(pick * (len(variants) - 1))]

    def _template(self, concept: int, chance: float) -> tuple[list[int], list[int]]:
        templates = GLYPH_TEMPLATES.get(self.kinds[concept], TEMPLATES)
        before, after = self._halves[templates[int(chance * len(templates))]]
        return before, after


def _variants(words: str, aliases: list[str]) -> list[str]:
    """Return the names of a concept: its own words, first with digits as words, then its aliases."""
    return list(dict.fromkeys([spoken(words), words, *map(spoken, aliases)]))
