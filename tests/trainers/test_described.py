"""DATASET.DESCRIPTIONS: descriptions in the zero-shot classifier of any trainer that has one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.backbones.descriptions import described_features, load_descriptions, zero_shot_features
from coft.runtime.errors import UserError
from tests.conftest import CLASSNAMES


def text_of(trainer: Any) -> torch.Tensor:
    """Text features that a trainer starts from."""
    for found in ("text_features", "text"):
        value = getattr(trainer, found, None)
        if isinstance(value, torch.Tensor):
            return value
    return trainer.text_features() if hasattr(trainer, "text_features") else trainer.first_head("model_1")


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "NormAdaptation", "CoFT", "SelfTraining", "Supervised", "DeFT"])
def test_descriptions_have_their_share(trainer: str, run: Callable[..., Any], described: Path) -> None:
    plain = run(trainer, train=False, out="plain")
    told = run(trainer, train=False, DATASET__DESCRIPTIONS=described, DATASET__DESCRIPTIONS_SHARE=0.3)
    templates = plain.templates[: getattr(plain, "num_templates", 99)]
    expected = described_features(plain.clip_model, CLASSNAMES, templates, load_descriptions(described), 0.3)
    torch.testing.assert_close(text_of(told), expected)
    torch.testing.assert_close(text_of(plain), zero_shot_features(plain, templates))
    assert not torch.equal(text_of(plain), text_of(told))


def test_upl_labels_with_descriptions(run: Callable[..., Any], described: Path) -> None:
    from coft.method.labelling import zero_shot_logits
    from coft.method.seeds import select_seeds

    told = run("UPL", train=False, DATASET__DESCRIPTIONS=described, DATASET__DESCRIPTIONS_SHARE=1.0)
    texts = described_features(told.clip_model, CLASSNAMES, told.templates[:1], load_descriptions(described), 1.0)
    seeds, _ = select_seeds(zero_shot_logits(told.clip_model, texts, told.pool, told.cfg, told.device), 3)
    assert torch.equal(told.seeds.ranks, seeds.ranks) and torch.equal(told.seeds.labels, seeds.labels)


def test_a_data_set_that_has_none(run: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    plain, told = run("ZeroshotCLIP", out="plain"), run("ZeroshotCLIP", DATASET__DESCRIPTIONS="auto")
    assert torch.equal(text_of(plain), text_of(told)) and "goes on without descriptions" in caplog.text


def test_mistakes_are_one_line(run: Callable[..., Any], described: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CoOp learns its prompts from labels"):
        run("CoOp", train=False, DATASET__DESCRIPTIONS="auto")
    with pytest.raises(UserError, match=r"SHARE is 1\.5; expected a number from 0 to 1"):
        run("ZeroshotCLIP", train=False, DATASET__DESCRIPTIONS=described, DATASET__DESCRIPTIONS_SHARE=1.5)
    with pytest.raises(UserError, match=r"no\.json: cannot be read"):
        run("ZeroshotCLIP", train=False, DATASET__DESCRIPTIONS=tmp_path / "no.json")
    described.write_text(json.dumps({CLASSNAMES[0]: ["A thing."]}))
    with pytest.raises(UserError, match=f"no sentence for class '{CLASSNAMES[1]}' and 1 more"):
        run("ZeroshotCLIP", train=False, DATASET__DESCRIPTIONS=described)
