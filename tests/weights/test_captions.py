"""Prompts for pre-training on drawings."""

import clip
import pytest
import torch

from weights.pretrain.captions import LENGTH, Captions

CONCEPTS = ["7", "a", "heart", "shopping cart"]
ALIASES = {"heart": ["love"]}
KINDS = ["digit", "letter", "icon", "icon"]


@pytest.fixture(scope="module")
def captions() -> Captions:
    return Captions(CONCEPTS, ALIASES, KINDS)


def _prompts(captions: Captions, concept: int, count: int = 400):
    return captions.prompts([concept] * count, torch.Generator().manual_seed(0))


def test_prompts_contain_start_end_and_name(captions):
    prompts = _prompts(captions, 3)
    rows = torch.arange(400)
    assert (prompts.tokens[:, 0] == captions.start).all()
    assert (prompts.tokens[rows, prompts.ends] == captions.end).all()
    name = [captions.token_ids.index(int(token)) for token in clip.tokenize("shopping cart")[0, 1:3]]
    for row in prompts.tokens.tolist():
        assert any(row[i : i + 2] == name for i in range(LENGTH - 1))


def test_positions_of_names_vary_and_contexts_may_be_noise(captions):
    prompts = _prompts(captions, 2)
    rows = torch.arange(400)
    ends = prompts.positions[rows, prompts.ends]
    assert ends.min() <= 3
    assert ends.max() > 60
    assert len(ends.unique()) > 40
    assert 0.1 < prompts.noise.any(1).float().mean() < 0.4
    assert not prompts.noise[:, 0].any()
    assert not prompts.noise[rows, prompts.ends].any()


def test_long_name_is_truncated():
    long = Captions([" ".join(["heart"] * 80)], {}, ["icon"])
    prompts = long.prompts([0] * 50, torch.Generator().manual_seed(1))
    assert (prompts.ends < LENGTH).all()
    assert (prompts.tokens[torch.arange(50), prompts.ends] == long.end).all()
