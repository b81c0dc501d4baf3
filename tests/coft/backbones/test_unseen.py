"""Class names with tokens that the pre-training has not seen."""

from __future__ import annotations

import logging

import pytest
import torch

from coft.backbones.load import EMBEDDED
from coft.backbones.tokens import CLIP_TOKENIZER
from coft.backbones.unseen import unseen_names, warn_of_unseen
from coft.core.sanitize import MAX_LISTED

NAMES = ["sweater", "pullover", "ankle_boot", "T-shirt", "dog"]


@pytest.mark.parametrize("backbone", EMBEDDED)
def test_names_with_unseen_tokens_are_found(backbone: str) -> None:
    known_tokens = torch.load(EMBEDDED[backbone], weights_only=True)["token_ids"].tolist()
    expected = [n for n in NAMES if any(t not in known_tokens for t in CLIP_TOKENIZER.encode(n.replace("_", " ")))]
    assert unseen_names(backbone, NAMES) == expected
    assert "pullover" in expected and "dog" not in expected


def test_other_backbones_have_no_unseen_names() -> None:
    assert unseen_names("photo", NAMES) == unseen_names("ViT-B/16", NAMES) == []


def test_the_warning_lists_a_limited_number_of_classes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_unseen("embedded", ["dog", "cat"])
        assert not caplog.records
        warn_of_unseen("embedded", ["pullover"])
        assert "embedded" in caplog.text and "pullover" in caplog.text
        caplog.clear()
        warn_of_unseen("embedded", [f"pullover {k}" for k in range(MAX_LISTED + 3)])
    assert f"pullover {MAX_LISTED - 1} and 3 more" in caplog.text
