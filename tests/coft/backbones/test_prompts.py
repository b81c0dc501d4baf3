from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from clip import clip
from clip.model import CLIP
from clip.simple_tokenizer import SimpleTokenizer

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

TOKENIZER = SimpleTokenizer()
NAMES = ["cat", "golden_retriever", "a very long name of many words"]


def coop_prompts(
    model: CLIP, names: list[str], context: torch.Tensor, position: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of 77 tokens as CoOp's paper lays them out, token by token."""
    rows, tokens = [], []
    num_ctx = context.shape[-2]
    for i, name in enumerate(names):
        name = name.replace("_", " ")
        ids = clip.tokenize(" ".join(["X"] * num_ctx) + " " + name + ".")[0]
        length = len(TOKENIZER.encode(name))
        embedded = model.token_embedding(ids)
        ctx = context[i] if context.dim() == 3 else context
        start, body = embedded[:1], embedded[1 + num_ctx :]
        name_part, rest = body[:length], body[length:]
        half = num_ctx // 2
        parts = {
            "end": [start, ctx, name_part, rest],
            "middle": [start, ctx[:half], name_part, ctx[half:], rest],
            "front": [start, name_part, ctx, rest],
        }[position]
        rows.append(torch.cat(parts))
        tokens.append(ids)
    return torch.stack(rows), torch.stack(tokens)


def plain_encode(model: CLIP, prompts: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The text tower over all 77 positions, as CoOp runs it."""
    x = (prompts + model.positional_embedding).permute(1, 0, 2)
    x = model.ln_final(model.transformer(x).permute(1, 0, 2))
    return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("class_specific", [False, True])
def test_prompts_equal_coops_features_and_gradients(clip_model: CLIP, position: str, class_specific: bool) -> None:
    model: Any = clip_model
    shape = (len(NAMES), 4) if class_specific else (4,)
    context = random_context(model, *shape, generator=torch.Generator().manual_seed(0))
    learner = PromptLearner(model, NAMES, context.clone(), position=position)
    ours = encode_text(model, *learner())
    reference = context.clone().requires_grad_(True)
    plain = plain_encode(model, *coop_prompts(model, NAMES, reference, position))
    torch.testing.assert_close(ours, plain, atol=2e-5, rtol=1e-4)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    (ours * weight).sum().backward()
    (plain * weight).sum().backward()
    torch.testing.assert_close(learner.ctx.grad, reference.grad, atol=2e-4, rtol=1e-3)


def test_cutting_at_the_end_of_text_is_exact_in_float64(clip_model: CLIP) -> None:
    from tests.conftest import make_clip

    model: Any = make_clip(vit=True).double()
    for block in [model.ln_final, *model.transformer.resblocks]:
        for norm in block.modules():
            if isinstance(norm, torch.nn.LayerNorm):  # CLIP's own casts to fp32 inside
                norm.forward = torch.nn.LayerNorm.forward.__get__(norm)
    context = torch.randn(4, 64, dtype=torch.float64)
    learner = PromptLearner(model, NAMES, context)
    ours = encode_text(model, *learner())
    plain = plain_encode(model, *coop_prompts(model, NAMES, context, "end"))
    torch.testing.assert_close(ours, plain, atol=1e-10, rtol=0)


def test_template_features_equal_clips_own(clip_model: CLIP) -> None:
    template = "a photo of a {}, a type of pet."
    tokens = clip.tokenize([template.format(name.replace("_", " ")) for name in NAMES])
    expected = F.normalize(clip_model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(template_features(clip_model, NAMES, template), expected, atol=1e-5, rtol=1e-4)


def test_ensemble_is_the_normalised_mean(clip_model: CLIP) -> None:
    templates = ["a {}.", "the {}."]
    mean = sum(template_features(clip_model, NAMES, t) for t in templates) / 2
    torch.testing.assert_close(ensemble_features(clip_model, NAMES, templates), mean / mean.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("template", ["a photo of a {}.", "a photo of the {}, a type of pet."])
def test_dual_prompts_start_at_the_templates_zero_shot_classifier(clip_model: CLIP, template: str) -> None:
    prompts = DualPrompts(clip_model, NAMES, template, generator=torch.Generator().manual_seed(0))
    positive, negative = prompts()
    torch.testing.assert_close(positive, template_features(clip_model, NAMES, template), atol=1e-5, rtol=1e-4)
    assert 0 < (positive - negative).norm(dim=-1).max() < 0.2


def test_dual_prompts_in_one_pass_equal_two_passes(clip_model: CLIP) -> None:
    prompts = DualPrompts(clip_model, NAMES, "a {}.", num_ctx=16, generator=torch.Generator().manual_seed(0))
    positive, negative = prompts()
    for features, learner in ((positive, prompts.positive), (negative, prompts.negative)):
        torch.testing.assert_close(features, F.normalize(encode_text(clip_model, *learner()), dim=-1))


def test_word_context_takes_the_words_tokens(clip_model: CLIP) -> None:
    ids = clip.tokenize("a photo of a")[0, 1:5]
    assert torch.equal(word_context(clip_model, "a_photo_of_a"), clip_model.token_embedding.weight[ids])


def test_checkpoint_of_coop_loads(clip_model: CLIP) -> None:
    learner = PromptLearner(clip_model, NAMES, random_context(clip_model, 4))
    written_by_coop = {
        "ctx": torch.ones(4, 64).half(),
        "token_prefix": torch.zeros(3, 1, 64),
        "token_suffix": torch.zeros(3, 72, 64),
    }
    learner.load_state_dict(written_by_coop)
    assert torch.equal(learner.ctx, torch.ones(4, 64))
    assert set(learner.state_dict()) == {"ctx"}


def test_unknown_position_is_named(clip_model: CLIP) -> None:
    with pytest.raises(UserError, match="'back'; expected one of end, middle, front"):
        PromptLearner(clip_model, NAMES, random_context(clip_model, 4), position="back")


def test_a_name_too_long_is_named(clip_model: CLIP) -> None:
    with pytest.raises(
        UserError, match=r"class name 'word word.* makes a prompt of \d+ tokens, the text encoder reads 77"
    ):
        PromptLearner(clip_model, ["cat", "word " * 80], random_context(clip_model, 4))
    with pytest.raises(UserError, match="the text encoder reads 77"):
        template_features(clip_model, ["word " * 80], "a {}.")


SYNONYMS = {"cat": ["tomcat", "house_cat"], NAMES[2]: ["long"]}


def test_a_class_with_synonyms_has_the_mean_of_its_names(clip_model: CLIP) -> None:
    found = template_features(clip_model, NAMES, "a {}.", SYNONYMS)
    alone = template_features(clip_model, ["cat", "tomcat", "house cat"], "a {}.")
    torch.testing.assert_close(found[0], F.normalize(alone.mean(dim=0), dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], template_features(clip_model, NAMES, "a {}.")[1], atol=1e-5, rtol=1e-4)
    both = [template_features(clip_model, NAMES, template, SYNONYMS) for template in ("a {}.", "the {}.")]
    torch.testing.assert_close(
        ensemble_features(clip_model, NAMES, ["a {}.", "the {}."], SYNONYMS), F.normalize(sum(both), dim=1)
    )


def test_dual_prompts_with_synonyms_start_at_the_zero_shot_classifier_and_train(clip_model: CLIP) -> None:
    source = torch.Generator().manual_seed(0)
    prompts = DualPrompts(clip_model, NAMES, "a photo of a {}.", generator=source, synonyms=SYNONYMS)
    positive, _ = prompts()
    expected = template_features(clip_model, NAMES, "a photo of a {}.", SYNONYMS)
    torch.testing.assert_close(positive, expected, atol=1e-5, rtol=1e-4)
    (positive[0] @ torch.linspace(-1, 1, positive.shape[1])).backward()
    assert prompts.positive.ctx.grad.abs().min() > 0
    assert prompts.state_dict().keys() == {"positive.ctx", "negative.ctx"}


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_contexts_of_the_classes_own_stand_before_each_of_its_names(clip_model: CLIP, position: str) -> None:
    context = random_context(clip_model, 3, 4, generator=torch.Generator().manual_seed(0))
    learner = PromptLearner(clip_model, NAMES, context, position=position, synonyms=SYNONYMS)
    found = encode_prompts(clip_model, learner)[0]
    names, own = ["cat", "tomcat", "house_cat", NAMES[1], NAMES[2], "long"], [0, 0, 0, 1, 2, 2]
    alone = encode_prompts(clip_model, PromptLearner(clip_model, names, context[own], position=position))[0]
    means = [F.normalize(alone, dim=1)[[row for row in range(6) if own[row] == c]].mean(dim=0) for c in range(3)]
    torch.testing.assert_close(found, F.normalize(torch.stack(means), dim=1), atol=1e-5, rtol=1e-4)
