"""Classifiers of positive and negative vectors against their definitions, and the rules for p_clean."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.labelling.classifier import CLEAN_RULES, SCORES, Classifier, clean_log_odds
from coft.labelling.predictor import FinalClassifier, Predictor, final_classifier


def unit(*shape: int, seed: int) -> Tensor:
    values = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (values / values.norm(dim=-1, keepdim=True)).requires_grad_(True)


def make_classifier(seed: int = 0, negative: bool = True) -> Classifier:
    """A classifier of images of 12 numbers, whose vectors are not normalised."""
    torch.manual_seed(seed)
    positive, other = (nn.Parameter(torch.randn(3, 4)) for _ in range(2))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    return Classifier(encoder, positive, other if negative else None, 5.0)


def images() -> Tensor:
    return torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(1))


# -------------------------------------------------------------------- logits and clean log-odds


def test_only_the_positive_vectors_are_detached() -> None:
    f, pos, neg = unit(4, 6, seed=0), unit(3, 6, seed=1), unit(3, 6, seed=2)
    weight = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    (clean_log_odds(f, pos, neg, 10.0) * weight).sum().backward()
    assert pos.grad is None
    expected_f = torch.stack([sum(10 * weight[i, c] * (pos[c] - neg[c]) for c in range(3)) for i in range(4)])
    expected_n = torch.stack([sum(-10 * weight[i, c] * f[i] for i in range(4)) for c in range(3)])
    torch.testing.assert_close(f.grad, expected_f)
    torch.testing.assert_close(neg.grad, expected_n)


@pytest.mark.parametrize("negative", [True, False])
@torch.no_grad()
def test_a_classifier_equals_its_definition(negative: bool) -> None:
    model = make_classifier(negative=negative)
    logits, odds = model(images())
    for i, image in enumerate(images()):
        f = model.encoder(image[None])[0]
        for c in range(3):
            plus = 5 * float(F.cosine_similarity(f, model.positive[c], dim=0))
            assert logits[i, c].item() == pytest.approx(plus, abs=1e-5)
            minus = 5 * float(F.cosine_similarity(f, model.negative_vectors[c], dim=0)) if negative else plus
            assert odds[i, c].item() == pytest.approx(plus - minus, abs=1e-5)


def test_vectors_of_different_shapes_are_refused() -> None:
    for shapes in (((2, 3), (3, 2)), ((3,), (3,))):
        with pytest.raises(ValueError, match=r"must all have shape"):
            Classifier(nn.Identity(), *(torch.zeros(shape) for shape in shapes), 1.0)


# -------------------------------------------------------------------- rules


def test_the_score_of_both_prompts_is_the_geometric_mean_of_p_and_p_clean() -> None:
    logits, odds = torch.randn(2, 8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2
    mean = (logits.softmax(dim=1) * CLEAN_RULES["softmax"](odds)).sqrt()
    joint = SCORES["both-prompts"](logits, odds).softmax(dim=1)
    torch.testing.assert_close(joint, mean / mean.sum(dim=1, keepdim=True))


def test_the_softmax_rule_is_the_posterior_if_exactly_one_label_is_correct() -> None:
    """Enumerate which of C independent labels are correct; keep the cases with exactly one."""
    d = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    q = torch.sigmoid(d - math.log(3))  # minimises the dual loss of each label alone
    for clean, chance in zip(CLEAN_RULES["softmax"](d), q.tolist(), strict=True):
        cases = [math.prod(chance[c] if c == correct else 1 - chance[c] for c in range(4)) for correct in range(4)]
        assert clean.tolist() == pytest.approx([case / sum(cases) for case in cases], abs=1e-12)


# -------------------------------------------------------------------- predictors


COUNT = 7


def make_model(seed: int, negative: bool = True) -> Classifier:
    torch.manual_seed(seed)
    encoder, heads = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), torch.randn(2, 3, 4) * 2
    return Classifier(encoder, heads[0], heads[1] if negative else None, 5.0).requires_grad_(False)


def seven_images() -> Tensor:
    return torch.randn(COUNT, 3, 2, 2, generator=torch.Generator().manual_seed(9))


def test_a_single_classifier_gives_its_logits_and_no_p_clean_without_a_rule() -> None:
    model = make_model(0, negative=False)
    predictor, features = Predictor({"a": final_classifier(model)}), model.features(seven_images())
    scores = predictor.scores([features])
    torch.testing.assert_close(predictor.log_probabilities(scores), model.classify(features)[0])
    assert predictor.p_clean(scores) is None


def test_a_shared_encoder_is_listed_once() -> None:
    model, other = make_model(0), make_model(1)
    parts = {
        "a": final_classifier(other),
        "b": final_classifier(model),
        "c": FinalClassifier(model.encoder, model.positive, None, 2.0),
    }
    predictor = Predictor(parts)
    assert predictor.encoders == [other.encoder, model.encoder] and predictor.numbers() == [0, 1, 1]
