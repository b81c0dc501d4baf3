"""A class with synonyms has the mean of the text features of its names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from coft.backbones.prompts import PromptLearner, encode_prompts, ensemble_features
from coft.core.errors import UserError
from tests.conftest import CLASSNAMES, Shapes
from tests.trainers.conftest import templates_of, text_features
from tests.trainers.runs import Run

SYNONYMS = {"red circle": ("red disc", "scarlet dot"), "blue stripes": ("blue bars",)}


@pytest.fixture(autouse=True)
def _synonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shapes, "synonyms", SYNONYMS, raising=False)


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "CoFT", "SelfTraining", "Supervised", "DeFT"])
def test_text_features_are_the_mean_over_names(trainer: str, run: Run) -> None:
    built = run(trainer, train=False)
    expected = ensemble_features(built.clip_model, CLASSNAMES, templates_of(built), SYNONYMS)
    torch.testing.assert_close(text_features(built), expected)
    assert built.classnames == list(CLASSNAMES)


@pytest.mark.parametrize("trainer", ["UPL", "GRIP", "CoOp"])
def test_a_learned_context_precedes_each_name(trainer: str, run: Run) -> None:
    method = run(trainer, train=False).method
    learner, clip_model = method.learners["prompt_learner"], method.engine.clip.clip_model
    names = ["red circle", "red disc", "scarlet dot", "green square", "blue stripes", "blue bars"]
    features = F.normalize(encode_prompts(clip_model, PromptLearner(clip_model, names, learner.ctx.detach()))[0], dim=1)
    expected = torch.stack([features[:3].mean(dim=0), features[3], features[4:].mean(dim=0)])
    torch.testing.assert_close(method.text("prompt_learner"), F.normalize(expected, dim=1), atol=1e-5, rtol=1e-4)


def test_a_checkpoint_with_other_synonyms_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = run("CoFT", train=False).session.identity
    monkeypatch.setattr(Shapes, "synonyms", {})
    plain = run("CoFT", train=False).session
    assert identity["class list"] != plain.identity["class list"] == " | ".join(CLASSNAMES)
    with pytest.raises(UserError, match="made with another class list"):
        plain.load_state_dict({"identity": identity, "method": plain.method.state_dict()})
