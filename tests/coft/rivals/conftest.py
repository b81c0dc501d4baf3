"""A CLIP that the tests of a module share."""

from __future__ import annotations

import pytest

from tests.coft.rivals.making import ClipBackbone, make_clip_backbone


@pytest.fixture(scope="module")
def clip() -> ClipBackbone:
    return make_clip_backbone()
