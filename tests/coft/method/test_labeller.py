"""Running models over the unlabeled images: means over views, several models in one pass, each its own images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.parallel import Parallel
from coft.labelling.pseudo_labels import correct_prior_
from coft.method.labeller import SCORES, Labeller, best_class, mean_features, predict
from coft.method.peer import Classifier
from coft.method.protocol import Runtime
from tests.coft.method.toys import CLASSES, COUNT, DIM, ToyBackbone, ToyImages

EPOCH = 7
KEY = (1, "labels", EPOCH)


def make_models(names: tuple[str, ...] = ("a", "b")) -> dict[str, Classifier]:
    images, source = ToyImages(), torch.Generator().manual_seed(0)
    models = {}
    for name in names:
        vectors = (nn.Parameter(torch.randn(CLASSES, DIM, generator=source)) for _ in range(2))
        encoder: Any = ToyBackbone(images).visual
        encoder[3].weight.data += 0.3 * torch.randn(encoder[3].weight.shape, generator=source)
        models[name] = Classifier(encoder.requires_grad_(True), *vectors, 6.0)
    return models


def make_labeller(**options: Any) -> Labeller:
    return Labeller(ToyImages(), Runtime(1, **options), Parallel(2, nn.Identity(), "cpu"))


@pytest.mark.parametrize("views", [1, 3])
@torch.no_grad()
def test_answers_are_means_over_the_views(views: int) -> None:
    models, labeller = make_models(), make_labeller()
    scores = labeller.score(models, views, EPOCH)
    features = labeller.encode(models, views, EPOCH)
    for name, model in models.items():
        for i in range(COUNT):
            each = [model(view[None]) for view in labeller.images.views(i, views, KEY)]
            for part, found in enumerate(scores[name]):
                torch.testing.assert_close(found[i], sum(answer[part][0] for answer in each) / views)
            encoded = [model.features(view[None])[0] for view in labeller.images.views(i, views, KEY)]
            torch.testing.assert_close(features[name][i], sum(encoded) / views)


@pytest.mark.parametrize("views", [1, 2])
@torch.no_grad()
def test_scores_of_kept_features_are_those_of_one_pass(views: int) -> None:
    models, labeller = make_models(), make_labeller()
    found = labeller.classify(models, labeller.encode(models, views, EPOCH))
    for name, wanted in labeller.score(models, views, EPOCH).items():
        for a, b in zip(found[name], wanted, strict=True):
            torch.testing.assert_close(a, b)


@torch.no_grad()
def test_each_model_s_features_are_of_its_own_images_however_many() -> None:
    models, labeller = make_models(("a", "b", "c")), make_labeller()
    index = {"a": torch.arange(20).flip(0), "b": torch.tensor([4, 9]), "c": torch.tensor([1, 1, 3, 8, 2, 5, 7, 6])}
    for views in (1, 2):
        found = labeller.encode_some(models, index, views, EPOCH)
        every = labeller.encode(models, views, EPOCH)
        for name, which in index.items():
            torch.testing.assert_close(found[name], every[name][which])


def test_nothing_has_gradients_and_models_are_in_evaluation_mode() -> None:
    models, labeller = make_models(), make_labeller()
    for model in models.values():
        model.train()
    index = dict.fromkeys(models, torch.arange(3))
    features = labeller.encode(models)
    found = [*features.values(), *labeller.encode_some(models, index).values()]
    for scores in (
        labeller.score(models),
        labeller.classify(models, features),
        labeller.scores_of(models, torch.randn(2, 3, 4, 4)),
    ):
        found += [x for pair in scores.values() for x in pair]
    assert not any(x.requires_grad for x in found) and not any(model.training for model in models.values())


def test_the_precision_is_that_of_the_run_and_its_seconds_are_counted() -> None:
    parts: list[str] = []

    @contextmanager
    def timed(name: str) -> Any:
        parts.append(name)
        yield

    models, seen = make_models(), []
    models["a"].encoder.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    labeller = make_labeller(dtype=torch.bfloat16, timed=timed)
    features = labeller.encode(models)
    labeller.classify(models, features)
    labeller.score(models)
    labeller.encode_some(models, dict.fromkeys(models, torch.arange(3)))
    assert set(seen) == {torch.bfloat16} and parts == ["labelling"] * 4
    assert all(table.dtype == torch.float32 for table in features.values())


def test_mean_features_equal_a_naive_loop_with_gradients() -> None:
    source = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 5, generator=source, dtype=torch.float64, requires_grad=True)
    views = torch.randn(4, 3, 3, 4, 4, generator=source, dtype=torch.float64)

    def encode(images: Tensor) -> Tensor:
        return F.normalize(images.flatten(1) @ weight, dim=1)

    ours = mean_features(encode, views)
    plain = torch.stack([sum(encode(view[None])[0] for view in image) / 3 for image in views])
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad(x.square().sum(), weight)[0] for x in (ours.pow(2), plain.pow(2))))
    assert torch.equal(mean_features(encode, views[:, 0]), encode(views[:, 0]))


def drawn(seed: int) -> Tensor:
    return torch.randn(COUNT, CLASSES, generator=torch.Generator().manual_seed(seed)) * 3


SCORE: dict[str, Callable[[float, float], float]] = {"joint": lambda x, d: (x + d) / 2, "positive": lambda x, d: x}


@pytest.mark.parametrize("classify", SCORES)
def test_the_class_is_the_best_by_the_score(classify: str) -> None:
    logits, odds = drawn(0), drawn(1)
    found = best_class(logits, odds, classify).tolist()
    for x, d, c in zip(logits.tolist(), odds.tolist(), found, strict=True):
        scores = [SCORE[classify](a, b) for a, b in zip(x, d, strict=True)]
        assert scores.index(max(scores)) == c


@pytest.mark.parametrize("rule", ["coupled", "raw"])
@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_predictions_are_made_in_place_of_the_scores(rule: str, tau: float) -> None:
    logits, odds = drawn(0), drawn(1)
    plain = [correct_prior_(table.clone(), tau) for table in (logits, odds)]
    reported = predict(logits, odds, tau, rule)
    assert reported.probability is logits and reported.clean is odds
    torch.testing.assert_close(reported.probability, plain[0].softmax(dim=1))
    torch.testing.assert_close(reported.clean, plain[1].sigmoid() if rule == "raw" else plain[1].softmax(dim=1))
    assert torch.equal(reported.label, plain[0].argmax(dim=1))
