"""Text sides of open_clip's models: tokenizers other than CLIP's, and what prompts cannot be put into."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from coft.backbones.open_clip_names import Source
from coft.backbones.tokens import CLIP_TOKENIZER, Tokenizer
from coft.backbones.tower import AT_END, tower_of
from coft.core.errors import UserError

PROBE = "a photo"
OPTIONS = {"clean", "strip_sep_token", "language"}  # others would reach transformers, which has one that runs code


class HuggingFaceTokenizer:
    """open_clip's wrapper of a tokenizer of Hugging Face, as prompts need it.

    Args:
        wrapper: open_clip's `HFTokenizer`: cleans texts, and may replace the token at their end.
    """

    def __init__(self, wrapper: Any) -> None:
        self._clean, self._own = wrapper.clean_fn, wrapper.tokenizer
        bare, whole = self.encode(PROBE), self._own(self._clean(PROBE)).input_ids
        first = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        stripped = self._own.sep_token_id if wrapper.strip_sep_token else None
        self.pad: int = self._own.pad_token_id
        self.start = tuple(whole[:first])
        self.end = tuple(0 if token == stripped else token for token in whole[first + len(bare) :])

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer`."""
        return list(self._own(self._clean(text), add_special_tokens=False).input_ids)

    def continued(self, *parts: str) -> list[list[int]]:
        """See `Tokenizer`. A part's first word may have another token after a blank, and its last one before a dot."""
        texts = ["a", *(f"a {''.join(parts[: i + 1])}" for i in range(len(parts)))]
        whole = self.encode(texts[-1])
        cuts = [_in_common(self.encode(text), whole) for text in texts[:-1]]
        return [whole[a:b] for a, b in pairwise([*cuts, len(whole)])]


def _in_common(a: list[int], b: list[int]) -> int:
    """Length of the beginning that two lists have in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def tokenizer_of(source: Source) -> Tokenizer | None:
    """The tokenizer of a model; None where it is CLIP's.

    Raises:
        UserError: If it cannot be had.
    """
    config = source.config["text_cfg"]
    place, options = config.get("hf_tokenizer_name"), config.get("tokenizer_kwargs") or {}
    unknown = sorted(options.keys() - (OPTIONS if place else set()))
    if unknown or config.get("tokenizer_mode"):
        what = f"tokenizer_kwargs {unknown[0]!r}" if unknown else f"tokenizer_mode {config['tokenizer_mode']!r}"
        raise UserError(f"backbone {source.name}: its {what} is not supported; use another model")
    if not place:
        return None
    try:
        from open_clip.tokenizer import HFTokenizer

        place = source.folder or place
        return HuggingFaceTokenizer(HFTokenizer(str(place), config.get("context_length", 77), **options))
    except ModuleNotFoundError as error:
        raise UserError(
            f"backbone {source.name}: its tokenizer needs the package {error.name}: pip install transformers; "
            f"then give the command again"
        ) from error
    except Exception as error:  # of transformers, huggingface_hub or the network
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = f"put its files (tokenizer.json ...) into {source.folder}" if source.folder else "go online once"
        raise UserError(f"backbone {source.name}: its tokenizer cannot be had ({reason[:200]}); {where}") from error


def check_text(name: str, model: Any) -> None:
    """Refuse a text encoder that reads its features where we do not know them to be.

    Args:
        name: For the error message.
        model: A model with its tokenizer.

    Raises:
        UserError: If tokens and encoder do not fit each other.
    """
    tower = tower_of(model)
    own, vocabulary = tower.tokenizer, tower.module.vocab_size
    eos = getattr(tower.module, "eos_id", getattr(tower.module, "text_eos_id", None))
    read = {"argmax": vocabulary - 1, "eos": eos}.get(tower.pool)
    if tower.pool not in (*AT_END, "first", "last"):
        raise UserError(
            f"backbone {name}: its text encoder pools by {tower.pool!r}, which gives no feature of a text; take "
            f"another backbone"
        )
    if own is CLIP_TOKENIZER and vocabulary <= own.end[0]:
        raise UserError(f"backbone {name}: it has {vocabulary} tokens, and CLIP's tokenizer more; give its tokenizer")
    if tower.class_embedding is None and read is not None and own.end != (read,):
        raise UserError(
            f"backbone {name}: its text encoder reads features at token {read}, and its tokenizer ends texts with "
            f"{list(own.end)}; give the tokenizer that it was trained with"
        )
