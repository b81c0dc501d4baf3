"""Whether a host can be had, known in seconds: libraries try again and again."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError

SECONDS = 10


def reachable(url: str) -> bool:
    """Whether the host of an address answers, whatever it says."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS).close()
    except HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def hub() -> Iterator[None]:
    """Context for Hugging Face's library: where its host cannot be had, it takes what is on disk, or fails at once."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
