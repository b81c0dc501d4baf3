"""Tokenizers of open_clip's models, and a check that they fit the text encoders."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from typing import Any

from coft.backbones.open_clip_names import Source
from coft.backbones.tokens import CLIP_TOKENIZER, Tokenizer
from coft.backbones.tower import AT_END, tower_of
from coft.core.errors import UserError, first_line
from coft.core.network import hub

PROBE = "a photo"
OPTIONS = {"clean", "strip_sep_token", "language"}  # others would reach transformers, where one of them executes code


class HuggingFaceTokenizer:
    """`Tokenizer` on top of open_clip's wrapper of a Hugging Face tokenizer.

    Args:
        wrapper: An `HFTokenizer` of open_clip. It cleans texts, and may replace their separator token by 0.
    """

    def __init__(self, wrapper: Any) -> None:
        self._clean, self._tokenizer = wrapper.clean_fn, wrapper.tokenizer
        bare, whole = self.encode(PROBE), self._tokenizer(self._clean(PROBE)).input_ids
        first = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        stripped = self._tokenizer.sep_token_id if wrapper.strip_sep_token else None
        self.pad: int = self._tokenizer.pad_token_id
        self.start = tuple(whole[:first])
        self.end = tuple(0 if token == stripped else token for token in whole[first + len(bare) :])

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without start and end tokens."""
        return list(self._tokenizer(self._clean(text), add_special_tokens=False).input_ids)

    def continued(self, *parts: str) -> list[list[int]]:
        """Return the token ids of each part of a text. Adjacent parts matter: blanks and dots may change a token."""
        texts = ["a", *(f"a {''.join(parts[: i + 1])}" for i in range(len(parts)))]
        whole = self.encode(texts[-1])
        cuts = [_in_common(self.encode(text), whole) for text in texts[:-1]]
        return [whole[a:b] for a, b in pairwise([*cuts, len(whole)])]


def _in_common(a: list[int], b: list[int]) -> int:
    """Return the length of the common prefix of two lists."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def tokenizer_of(source: Source) -> Tokenizer | None:
    """Load the tokenizer of a model; None if it is CLIP's.

    Args:
        source: Config and folder of the model.

    Raises:
        UserError: If the tokenizer or one of its options is not supported, or it cannot be loaded.
    """
    config = source.config["text_cfg"]
    name, options = config.get("hf_tokenizer_name"), config.get("tokenizer_kwargs") or {}
    unknown = sorted(options.keys() - (OPTIONS if name else set()))
    if unknown or config.get("tokenizer_mode"):
        setting = f"tokenizer_kwargs {unknown[0]!r}" if unknown else f"tokenizer_mode {config['tokenizer_mode']!r}"
        raise UserError(f"backbone {source.name}: its {setting} is not supported; use another model")
    if not name:
        return None
    try:
        from open_clip.tokenizer import HFTokenizer

        with nullcontext() if source.folder else hub():
            wrapper = HFTokenizer(str(source.folder or name), config.get("context_length", 77), **options)
        return HuggingFaceTokenizer(wrapper)
    except ModuleNotFoundError as error:
        raise UserError(
            f"backbone {source.name}: its tokenizer needs the package {error.name}: pip install transformers; "
            f"then give the command again"
        ) from error
    except Exception as error:  # from transformers, huggingface_hub or the network
        remedy = f"put its files (tokenizer.json ...) into {source.folder}" if source.folder else "go online once"
        raise UserError(
            f"backbone {source.name}: its tokenizer cannot be loaded ({first_line(error)}); {remedy}"
        ) from error


def check_text(name: str, model: Any) -> None:
    """Check that a model's tokenizer fits its text encoder: pooling mode, vocabulary, and end token if read there.

    Args:
        name: Name of the backbone, for error messages.
        model: A model of open_clip, with its tokenizer.

    Raises:
        UserError: If tokenizer and text encoder do not fit, or the pooling mode is not supported.
    """
    tower = tower_of(model)
    tokenizer, vocabulary = tower.tokenizer, tower.module.vocab_size
    eos = getattr(tower.module, "eos_id", getattr(tower.module, "text_eos_id", None))
    read_token = {"argmax": vocabulary - 1, "eos": eos}.get(tower.pool)
    if tower.pool not in (*AT_END, "first", "last"):
        raise UserError(
            f"backbone {name}: its text encoder pools by {tower.pool!r}, which gives no feature of a text; take "
            f"another backbone"
        )
    if tokenizer is CLIP_TOKENIZER and vocabulary <= tokenizer.end[0]:
        raise UserError(f"backbone {name}: it has {vocabulary} tokens, and CLIP's tokenizer more; give its tokenizer")
    if tower.class_embedding is None and read_token is not None and tokenizer.end != (read_token,):
        raise UserError(
            f"backbone {name}: its text encoder reads features at token {read_token}, and its tokenizer ends texts "
            f"with {list(tokenizer.end)}; give the tokenizer that it was trained with"
        )
