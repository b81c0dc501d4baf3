"""Training-free rules against naive loops, and zero-shot CLIP with a rule."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.table import Table
from coft.labelling import neighbours
from coft.rivals import training_free
from coft.rivals.training_free import RULES, Propagation, TrainingFree, TrainingFreeSettings, TransClip, Transport
from tests.coft.naive import smooth, without_prior, zero_shot_logits
from tests.coft.toys import assert_same_bits, checkpoint_of, load, make_method, train, weights


@pytest.fixture
def pool() -> tuple[Tensor, Tensor, Tensor]:
    """Features in three clusters of unequal size, zero-shot logits that confuse two of them, and the clusters."""
    source = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(3, 12, generator=source), dim=1)
    label = torch.tensor([0] * 20 + [1] * 12 + [2] * 8)
    features = F.normalize(centres[label] + 0.1 * torch.randn(40, 12, generator=source), dim=1)
    text = F.normalize(centres + 0.25 * torch.randn(3, 12, generator=source), dim=1)
    return features, 10 * features @ text.t(), label


@pytest.mark.parametrize("name", RULES)
def test_rules_can_be_saved(name: str, pool: tuple[Tensor, Tensor, Tensor]) -> None:
    features, logits, _ = pool
    rule, loaded = (RULES[name](40, 12, 3) for _ in range(2))
    rule.fit(Table.of(features), Table.of(logits))
    loaded.load_state_dict(rule.state_dict())
    assert torch.equal(loaded(features, logits), rule(features, logits))


def new_images(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits of five images that a rule was not fitted to."""
    source = torch.Generator().manual_seed(1)
    return F.normalize(features[::8] + 0.2 * torch.randn(5, 12, generator=source), dim=1), torch.randn(5, 3)


def test_propagation_to_new_images_equals_a_naive_loop(pool: tuple[Tensor, Tensor, Tensor]) -> None:
    features, logits, _ = pool
    rule = Propagation(40, 12, 3)
    rule.fit(Table.of(features), Table.of(logits))
    count, share = neighbours.neighbour_count(40, 3), neighbours.ALPHA
    offset = (logits.double() - without_prior(logits.double()))[0]
    spread = smooth(features, count, (logits.double() - offset).softmax(dim=1))
    new, its_logits = new_images(features)
    mean, rows = features.mean(dim=0), []
    for x, values in zip(new - mean, (its_logits.double() - offset).softmax(dim=1), strict=True):
        cosine = [float(F.cosine_similarity(x, y, dim=0)) for y in features - mean]
        nearest = sorted(range(40), key=lambda i, c=cosine: -c[i])[:count]
        weight = [max(0.0, cosine[i]) ** neighbours.COSINE_POWER for i in nearest]
        near = sum(w * spread[i] for w, i in zip(weight, nearest, strict=True)) / sum(weight)
        rows.append((share * near + (1 - share) * values).log())
    torch.testing.assert_close(rule(new, its_logits).double(), torch.stack(rows), atol=1e-3, rtol=0)


def test_transport_makes_classes_equally_frequent(pool: tuple[Tensor, Tensor, Tensor]) -> None:
    features, logits, _ = pool
    rule = Transport(40, 12, 3)
    rule.fit(Table.of(features), Table.of(logits))
    mean = rule(features, logits).softmax(dim=1).mean(dim=0)
    torch.testing.assert_close(mean, torch.full((3,), 1 / 3), atol=1e-3, rtol=0)


def test_transclip_equals_a_naive_loop(pool: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    features, logits, _ = (x.double() if x.is_floating_point() else x for x in pool)
    monkeypatch.setattr(training_free, "ROUNDS", 2)
    rule = TransClip(40, 12, 3)
    rule.fit(*map(Table.of, pool[:2]))
    text, images = logits.log_softmax(dim=1), range(40)
    z, similar = text.exp(), features @ features.t()
    neighbours = [sorted((j for j in images if j != i), key=lambda j, i=i: -float(similar[i, j]))[:3] for i in images]
    variance = torch.full((12,), 1 / 12, dtype=torch.float64)
    for fitted in range(3):
        members = [sorted(images, key=lambda i, c=c: -float(z[i, c]))[: 40 if fitted else 8] for c in range(3)]
        centres = torch.stack([F.normalize(sum(z[i, c] * features[i] for i in members[c]), dim=0) for c in range(3)])
        if fitted:
            variance = sum(z[i, c] * (features[i] - centres[c]) ** 2 for i in images for c in range(3)) / 40
        for _ in range(5):
            rows = []
            for i in images:
                linked = [*neighbours[i], *(j for j in images if i in neighbours[j])]  # edges are symmetric
                propagated = [sum(float(similar[i, j]) * z[j, c] for j in linked) / 6 for c in range(3)]
                gauss = [-0.5 * ((features[i] - centres[c]) ** 2 / variance).sum() / 50 for c in range(3)]
                odds = [math.exp(text[i, c] + gauss[c] + propagated[c]) for c in range(3)]
                rows.append(torch.tensor(odds, dtype=torch.float64) / sum(odds))
            z = torch.stack(rows)
    torch.testing.assert_close(rule.assigned.double(), z, atol=1e-3, rtol=0)
    new, its_logits = new_images(pool[0])
    rows = []
    for x, text_of in zip(new.double(), its_logits.double().log_softmax(dim=1), strict=True):
        near = sorted(images, key=lambda i, x=x: -float(x @ features[i]))[:3]
        around = [sum(float(x @ features[i]) * z[i, c] for i in near) / 3 for c in range(3)]
        gauss = [-0.5 * ((x - centres[c]) ** 2 / variance).sum() / 50 for c in range(3)]
        rows.append(torch.stack([text_of[c] + gauss[c] + around[c] for c in range(3)]).softmax(dim=0))
    torch.testing.assert_close(rule(new, its_logits).double().softmax(dim=1), torch.stack(rows), atol=1e-3, rtol=0)


def test_transclip_takes_means_of_views_for_unit_vectors(pool: tuple[Tensor, Tensor, Tensor]) -> None:
    features, logits, _ = pool
    shorter = features * torch.linspace(0.9, 1, 40).unsqueeze(1)
    rules = [TransClip(40, 12, 3) for _ in range(2)]
    for rule, each in zip(rules, (features, shorter), strict=True):
        rule.fit(Table.of(each), Table.of(logits))
    torch.testing.assert_close(rules[1].assigned, rules[0].assigned, atol=1e-4, rtol=0)


def test_transclip_is_fitted_to_evenly_spaced_images(
    pool: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_free, "ANCHORS", 20)
    of_all, of_half = TransClip(40, 12, 3), TransClip(20, 12, 3)
    of_all.fit(*map(Table.of, pool[:2]))
    of_half.fit(*(Table.of(numbers[::2]) for numbers in pool[:2]))
    assert_same_bits(dict(of_all.named_buffers()), dict(of_half.named_buffers()))


def test_a_rule_is_fitted_to_views_of_the_unlabeled_images() -> None:
    method, loaded = (make_method(TrainingFree, TrainingFreeSettings("prior")) for _ in range(2))
    train(method)
    images, clip = method.engine.images, method.engine.clip
    views = torch.stack([images.views(i, 2, (1, "labels", 0)) for i in range(len(images))])
    features = sum(F.normalize(clip.visual(views[:, n]), dim=-1) for n in range(2)) / 2
    view_logits, test_logits = clip.scale * features @ clip.zero_shot_text().t(), zero_shot_logits(method)
    offset = view_logits.double() - without_prior(view_logits.double())
    corrected = method.engine.predict(images.pixels)
    torch.testing.assert_close(corrected.double(), test_logits - offset[:1], atol=1e-4, rtol=1e-4)
    load(loaded, checkpoint_of(method))
    assert_same_bits(weights(method), weights(loaded))
    assert torch.equal(loaded.engine.predict(images.pixels), corrected)
    assert (method.epochs, method.ensemble_size) == (0, 1)
