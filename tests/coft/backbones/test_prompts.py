from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from clip import clip
from clip.model import CLIP

from coft.backbones.load import load_clip
from coft.backbones.prompts import (
    DualPrompts,
    PromptLearner,
    encode_prompts,
    ensemble_features,
    random_context,
    template_features,
    word_context,
)
from coft.backbones.text_tower import encode_text
from coft.core.errors import UserError

NAMES = ["cat", "golden_retriever", "a very long name of many words"]


def test_template_features_equal_those_of_clip(clip_model: CLIP) -> None:
    template = "a photo of a {}, a type of pet."
    tokens = clip.tokenize([template.format(name.replace("_", " ")) for name in NAMES])
    expected = F.normalize(clip_model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(template_features(clip_model, NAMES, template), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("template", ["a photo of a {}.", "a photo of the {}, a type of pet."])
def test_dual_prompts_start_as_the_zero_shot_classifier_of_the_template(clip_model: CLIP, template: str) -> None:
    prompts = DualPrompts(clip_model, NAMES, template, generator=torch.Generator().manual_seed(0))
    positive, negative = prompts()
    torch.testing.assert_close(positive, template_features(clip_model, NAMES, template), atol=1e-5, rtol=1e-4)
    assert 0 < (positive - negative).norm(dim=-1).max() < 0.2


def test_dual_prompts_in_one_pass_equal_two_passes(clip_model: CLIP) -> None:
    prompts = DualPrompts(clip_model, NAMES, "a {}.", num_ctx=16, generator=torch.Generator().manual_seed(0))
    positive, negative = prompts()
    for features, learner in ((positive, prompts.positive), (negative, prompts.negative)):
        torch.testing.assert_close(features, F.normalize(encode_text(clip_model, *learner()), dim=-1))


def test_word_context_has_the_token_embeddings(clip_model: CLIP) -> None:
    ids = clip.tokenize("a photo of a")[0, 1:5]
    assert torch.equal(word_context(clip_model, "a_photo_of_a"), clip_model.token_embedding.weight[ids])


def test_a_class_name_that_is_too_long_is_refused(clip_model: CLIP) -> None:
    with pytest.raises(
        UserError, match=r"class name 'word word.* makes a prompt of \d+ tokens, the text encoder reads 77"
    ):
        PromptLearner(clip_model, ["cat", "word " * 80], random_context(clip_model, 4))
    with pytest.raises(UserError, match="the text encoder reads 77"):
        template_features(clip_model, ["word " * 80], "a {}.")


SYNONYMS = {"cat": ["tomcat", "house_cat"], NAMES[2]: ["long"]}


def test_a_class_with_synonyms_has_the_mean_feature_of_its_names(clip_model: CLIP) -> None:
    means = template_features(clip_model, NAMES, "a {}.", SYNONYMS)
    single = template_features(clip_model, ["cat", "tomcat", "house cat"], "a {}.")
    torch.testing.assert_close(means[0], F.normalize(single.mean(dim=0), dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(means[1], template_features(clip_model, NAMES, "a {}.")[1], atol=1e-5, rtol=1e-4)
    both = [template_features(clip_model, NAMES, template, SYNONYMS) for template in ("a {}.", "the {}.")]
    torch.testing.assert_close(
        ensemble_features(clip_model, NAMES, ["a {}.", "the {}."], SYNONYMS), F.normalize(sum(both), dim=1)
    )


def test_dual_prompts_with_synonyms_start_as_the_zero_shot_classifier_and_train(clip_model: CLIP) -> None:
    source = torch.Generator().manual_seed(0)
    prompts = DualPrompts(clip_model, NAMES, "a photo of a {}.", generator=source, synonyms=SYNONYMS)
    positive, _ = prompts()
    expected = template_features(clip_model, NAMES, "a photo of a {}.", SYNONYMS)
    torch.testing.assert_close(positive, expected, atol=1e-5, rtol=1e-4)
    (positive[0] @ torch.linspace(-1, 1, positive.shape[1])).backward()
    assert prompts.positive.ctx.grad.abs().min() > 0
    assert prompts.state_dict().keys() == {"positive.ctx", "negative.ctx"}


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_class_specific_contexts_precede_each_name_of_the_class(clip_model: CLIP, position: str) -> None:
    context = random_context(clip_model, 3, 4, generator=torch.Generator().manual_seed(0))
    learner = PromptLearner(clip_model, NAMES, context, position=position, synonyms=SYNONYMS)
    features = encode_prompts(clip_model, learner)[0]
    names, owners = ["cat", "tomcat", "house_cat", NAMES[1], NAMES[2], "long"], [0, 0, 0, 1, 2, 2]
    single = encode_prompts(clip_model, PromptLearner(clip_model, names, context[owners], position=position))[0]
    means = [F.normalize(single, dim=1)[[row for row in range(6) if owners[row] == c]].mean(dim=0) for c in range(3)]
    torch.testing.assert_close(features, F.normalize(torch.stack(means), dim=1), atol=1e-5, rtol=1e-4)


def test_names_in_different_scripts_have_different_features(checkpoints: dict[str, Path]) -> None:
    for name in ("embedded", str(checkpoints["vit"])):
        features = template_features(load_clip(name), ["犬", "собака", "كلب", "चित्र"], "a {}.")
        assert features.isfinite().all() and len(features.unique(dim=0)) == 4
