"""Texts that nobody would think of: hypothesis makes them, the same ones each time."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

ANY = st.characters()  # surrogates included
TEXTS = st.text(ANY, max_size=60)
LISTS = st.lists(TEXTS, min_size=2, max_size=5)  # of class names
DESCRIPTIONS = st.dictionaries(TEXTS, st.lists(TEXTS, max_size=3), max_size=3)
NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: not {b"/"[0], 0} & set(name))  # of files


def drawn(kind: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Draw examples.

    Args:
        kind: Of what kind.
        count: How many at most; those that are drawn twice come once.
    """
    set_hypothesis_home_dir(os.path.join(tempfile.gettempdir(), "coft-hypothesis"))  # noqa: PTH118 - not in the checkout
    found: dict[str, Any] = {}

    @seed(0)
    @settings(
        max_examples=count,
        phases=(Phase.generate,),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(kind)
    def collect(example: Any) -> None:
        found[repr(example)] = example

    collect()
    return list(found.values())
