"""Random numbers by name: every draw is a function of the run's seed and of what it is for.

No draw depends on how many were made before it, so a run that is resumed, or that loads its images with another
number of workers, makes the same ones.
"""

from __future__ import annotations

import hashlib

import torch


def derive(*key: int | str) -> int:
    """Derive a seed from the run's seed and the names of what it is for.

    Returns:
        An integer in [0, 2^63).
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """Make a CPU random generator for the named purpose."""
    return torch.Generator().manual_seed(derive(*key))
