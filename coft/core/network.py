"""Quick checks whether a host is reachable: libraries retry for much longer."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from urllib.error import HTTPError

SECONDS = 10


def reachable(url: str) -> bool:
    """Return whether the host of a URL answers, be it with an HTTP error."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS).close()
    except HTTPError:
        return True
    except (OSError, ValueError, HTTPException):
        return False
    return True


@contextmanager
def hub() -> Iterator[None]:
    """Context that puts Hugging Face's library in offline mode if its host is unreachable: cached files, no retries."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
