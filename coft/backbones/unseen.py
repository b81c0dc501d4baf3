"""Class names with tokens that did not occur in a backbone's pre-training, so that it cannot tell what they mean."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from coft.core.sanitize import some_of
from coft.core.tensors import load_saved

from .load import EMBEDDED
from .prompts import plain_name
from .tokens import CLIP_TOKENIZER

log = logging.getLogger(__name__)


def unseen_names(backbone: str, classnames: Sequence[str]) -> list[str]:
    """Return the class names with a token that did not occur in pre-training, in their order.

    Only the embedded CLIPs record their tokens, so the list is empty for all others. The text tower of `photo` was
    trained on all whole words of the vocabulary, and OpenAI's CLIPs on texts from the web.

    Args:
        backbone: Name of the backbone.
        classnames: C class names.
    """
    if backbone not in EMBEDDED:
        return []
    seen = _seen_tokens(EMBEDDED[backbone])
    return [name for name in classnames if not seen.issuperset(CLIP_TOKENIZER.encode(plain_name(name)))]


@cache
def _seen_tokens(path: Path) -> frozenset[int]:
    return frozenset(load_saved(path)["token_ids"].tolist())


def warn_of_unseen(backbone: str, classnames: Sequence[str]) -> None:
    """Log a warning if there are class names with unseen tokens."""
    if names := unseen_names(backbone, classnames):
        log.warning(
            "The backbone %s has never seen a part of these class names: %s. It can hardly tell what they mean; use "
            "other words, or another backbone",
            *(backbone, some_of(names)),
        )
