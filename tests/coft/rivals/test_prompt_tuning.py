"""CoOp and UPL: prompts learned from labels, and from the most confident pseudo-labels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from coft.backbones.prompts import template_features
from coft.core.table import Table
from coft.engine.runtime import Runtime
from coft.images.batches import Source
from coft.labelling.seeds import select_seeds
from coft.method.coft import CoFT
from coft.method.coft_settings import CoFTSettings
from tests.coft.rivals.making import (
    COUNT,
    NAMES,
    ClipBackbone,
    make_clip_backbone,
    make_coop,
    make_images,
    make_upl,
)
from tests.coft.toys import (
    Recorder,
    assert_resumes,
    assert_same_bits,
    begin_at,
    make_method,
    pairs,
    train,
    weights,
    whole_batch,
)

MODELS = {"prompt_learner": "upl", "prompt_learner_2": "upl_2"}  # name of its random numbers


def test_upl_trains_on_weak_views_of_the_most_confident_images(clip: ClipBackbone) -> None:
    method = make_upl(clip)
    batches, images = begin_at(method), method.engine.images
    text = template_features(clip.clip_model, NAMES, "a photo of a {}.")
    logits = clip.scale * clip.encode(images.pixels) @ text.t()
    expected = select_seeds(Table.of(logits), 3, 3)
    assert pairs(method.observer.chosen[0][0]) == pairs(expected)
    assert [pairs(labels) for labels in method.labels.values()] == [pairs(expected)] * 2
    streams = {model: [Source(name, expected.index, 4)] for model, name in MODELS.items()}
    expected_batches, label = images.batches(["weak"], streams, len(batches), 1, "UPL", 0), dict(pairs(expected))
    for batch, expected_batch in zip(batches, expected_batches, strict=True):
        assert list(batch) == list(MODELS)
        for name in MODELS:
            assert torch.equal(batch[name].views, expected_batch[name].views)
            part = whole_batch(method, name, batch)
            assert part.labels.label.tolist() == [label[i] for i in batch[name].index.tolist()]
    drawn = torch.cat([batch["prompt_learner"].index for batch in batches])
    assert set(drawn.tolist()) == set(expected.index.tolist())
    assert not torch.equal(*(batches[0][name].views for name in MODELS))


@pytest.mark.parametrize("vit", [True, False])
def test_upl_with_labels_of_coft_trains_on_the_seeds_of_both_peers(vit: bool) -> None:
    clip = make_clip_backbone(vit, ["a photo of a {}.", "a drawing of a {}."])
    coft = make_method(CoFT, CoFTSettings(), Recorder(), images=make_images(), backbone=clip)
    as_coft = make_upl(clip, labels="coft", seeds_per_class=1)
    plain = make_upl(clip, seeds_per_class=2 * coft.per_peer)
    for method in (coft, as_coft, plain):
        method.engine.begin()
    (seeds, label, quotas), selected = coft.observer.chosen[0], as_coft.observer.chosen[0]
    assert pairs(as_coft.labels["prompt_learner"]) == pairs(seeds) == pairs(selected[0]) and len(seeds.index)
    assert torch.equal(selected[1], label) and torch.equal(selected[2], quotas)
    assert pairs(plain.labels["prompt_learner"]) != pairs(seeds)


def test_the_first_member_of_an_ensemble_equals_a_single_prompt(clip: ClipBackbone) -> None:
    single, ensemble = make_upl(clip, ensemble=1), make_upl(clip, ensemble=3)
    train(single), train(ensemble)
    end = weights(ensemble)
    assert list(end) == ["prompt_learner.ctx", "prompt_learner_2.ctx", "prompt_learner_3.ctx"]
    assert_same_bits(weights(single), {"prompt_learner.ctx": end["prompt_learner.ctx"]})
    assert not torch.equal(end["prompt_learner.ctx"], end["prompt_learner_2.ctx"])


def test_probabilities_of_members_are_averaged(clip: ClipBackbone) -> None:
    method, single, pixels = make_upl(clip), make_upl(clip, ensemble=1), make_images().pixels
    train(method)
    features = clip.scale * F.normalize(clip.clip_model.encode_image(pixels), dim=-1)
    logits = [features @ method.text(name).t() for name in method.learners]
    torch.testing.assert_close(method.engine.predict(pixels).exp(), sum(x.softmax(dim=1) for x in logits) / 2)
    torch.testing.assert_close(single.engine.predict(pixels), features @ single.text("prompt_learner").t())
    assert (method.ensemble_size, single.ensemble_size) == (2, 1)


def test_the_reported_loss_is_the_mean_cross_entropy_of_the_members(clip: ClipBackbone) -> None:
    method = make_upl(clip)
    batch = begin_at(method)[0]
    losses, accuracies = [], []
    with torch.no_grad():
        for name in MODELS:
            part = whole_batch(method, name, batch)
            labels = part.labels.label
            features = F.normalize(clip.clip_model.encode_image(part.views), dim=-1)
            logits = clip.scale * features @ method.text(name).t()
            losses.append(float(-logits.log_softmax(dim=1)[range(len(labels)), labels].mean()))
            accuracies.append(100 * float((logits.argmax(dim=1) == labels).float().mean()))
    reported = method.engine.step(batch)
    assert reported == pytest.approx({"loss": sum(losses) / 2, "acc": sum(accuracies) / 2}, rel=1e-4)


def test_a_resumed_run_ends_in_the_same_bits(clip: ClipBackbone) -> None:
    assert_resumes(lambda: make_upl(clip))


def test_logits_in_bf16_are_fp32(clip: ClipBackbone) -> None:
    method = make_upl(clip, Runtime(1, dtype=torch.bfloat16), ensemble=1)
    logits = method.engine.predict(make_images().pixels)
    assert logits.dtype == torch.float32 and not torch.equal(logits, logits.bfloat16().float())


# -------------------------------------------------------------------- CoOp


def test_coop_learns_from_batches_with_labels(clip: ClipBackbone) -> None:
    method = make_coop(clip, COUNT, epochs=6, n_ctx=4)
    losses = train(method)
    assert [len(steps) for steps in losses] == [3] * 6 and list(method.models) == ["prompt_learner"]
    assert sum(x["loss"] for x in losses[-1]) < sum(x["loss"] for x in losses[0])
    assert method.engine.schedulers["prompt_learner"].last_epoch == 6  # one step per epoch
