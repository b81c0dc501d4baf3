"""Random numbers by name: every draw is a function of the run's seed and its purpose.

No draw depends on the number of earlier draws. A run that is resumed, or that loads images with another number of
workers, therefore draws the same numbers.
"""

from __future__ import annotations

import hashlib

import torch


def derive(*key: int | str) -> int:
    """Derive a seed from a key: the run's seed and the names of a purpose.

    Returns:
        An integer in [0, 2^63).
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """Make a CPU random generator for the named purpose."""
    return torch.Generator().manual_seed(derive(*key))
