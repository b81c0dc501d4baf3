"""CoOp, UPL and GRIP: prompts learned from labels, from the surest pseudo-labels, and in rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.backbones.backbone import ClassBackbone
from coft.backbones.prompts import template_features
from coft.core import disk_tables
from coft.labelling.pseudo_labels import select_seeds
from coft.method.coft import CoFT
from coft.method.coft_settings import CoFTSettings
from coft.method.protocol import Runtime
from coft.rivals.grip import GRIP, GRIPSettings, linear_quota
from coft.rivals.prompt_tuning import UPL, CoOp, CoOpSettings, UPLSettings
from tests.coft.method.toys import Seen, ToyImages, assert_same_bits, load, pairs, saved, train, weights
from tests.conftest import make_clip

NAMES = ("cat", "dog", "bird")
COUNT = 18


class Backbone(ClassBackbone):
    """Features of toy images, which have no files that a cache could know them by."""

    def image_features(self, images: Any, num_views: int = 1, key: Sequence[int | str] = ()) -> Tensor:
        if num_views == 1:
            return F.normalize(self.clip_model.encode_image(images.pixels), dim=-1)
        views = [images.views(i, num_views, key) for i in range(len(images))]
        return torch.stack([F.normalize(self.clip_model.encode_image(each), dim=-1).mean(dim=0) for each in views])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(make_clip(True).requires_grad_(False), NAMES, ["a photo of a {}."], {})


def optimizer(learner: Any) -> tuple[Any, Any]:
    made = torch.optim.SGD(learner.parameters(), lr=0.01)
    return made, torch.optim.lr_scheduler.CosineAnnealingLR(made, T_max=2)


def make_images() -> Any:
    return ToyImages(COUNT, size=32)


def make_upl(backbone: Backbone, runtime: Runtime | None = None, **settings: Any) -> UPL:
    own = UPLSettings(**({"n_ctx": 4, "seeds_per_class": 3, "ensemble": 2} | settings))
    return UPL(make_images(), Seen(), backbone, own, runtime or Runtime(1), optimizer, 2, "UPL")


def make_grip(backbone: Backbone, runtime: Runtime | None = None, epochs: int = 2, **settings: Any) -> GRIP:
    own = GRIPSettings(**({"n_ctx": 4, "rounds": 3} | settings))
    return GRIP(make_images(), Seen(), backbone, own, runtime or Runtime(1), optimizer, epochs, "GRIP")


def test_upl_learns_from_weak_views_of_the_surest_images(backbone: Backbone) -> None:
    method = make_upl(backbone)
    text = template_features(backbone.clip_model, NAMES, "a photo of a {}.")
    expected = select_seeds(backbone.scale * backbone.image_features(method.images) @ text.t(), 3)
    assert pairs(method.labels) == pairs(expected) and pairs(method.observer.chosen[0][0]) == pairs(expected)
    batches = list(method.begin_epoch(0))
    index = dict.fromkeys(("upl", "upl_2"), expected.index)
    wanted = method.images.batches("weak", index, len(batches), 1, "UPL", 0)
    known = dict(pairs(expected))
    for ours, theirs in zip(batches, wanted, strict=True):
        assert list(ours) == ["upl", "upl_2"]
        for name, (views, labels, _) in zip(ours, method.examples(ours).values(), strict=True):
            assert torch.equal(views, theirs[name]["view"])
            assert labels.tolist() == [known[i] for i in ours[name]["index"].tolist()]
    assert set(torch.cat([batch["upl"]["index"] for batch in batches]).tolist()) == set(expected.index.tolist())
    first, second = method.examples(batches[0]).values()
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("vit", [True, False])
def test_upl_as_coft_learns_from_the_first_seeds_of_both_peers(vit: bool) -> None:
    several = Backbone(make_clip(vit).requires_grad_(False), NAMES, ["a photo of a {}.", "a drawing of a {}."], {})
    coft = CoFT(make_images(), several, CoFTSettings(), Runtime(1), Seen())
    coft.begin()
    seeds, logits, quotas = coft.observer.chosen[0]
    method = make_upl(several, as_coft=True, seeds_per_class=1)
    assert pairs(method.labels) == pairs(seeds) and len(seeds.index)
    assert torch.equal(method.observer.chosen[0][1], logits) and torch.equal(method.observer.chosen[0][2], quotas)
    plain = make_upl(several, seeds_per_class=2 * coft.per_peer)
    assert pairs(plain.labels) != pairs(seeds)


def test_the_first_of_an_ensemble_is_the_one_that_trains_alone(backbone: Backbone) -> None:
    alone, together = make_upl(backbone, ensemble=1), make_upl(backbone, ensemble=3)
    train(alone), train(together)
    found = weights(together)
    assert list(found) == ["prompt_learner.ctx", "prompt_learner_2.ctx", "prompt_learner_3.ctx"]
    assert_same_bits(weights(alone), {"prompt_learner.ctx": found["prompt_learner.ctx"]})
    assert not torch.equal(found["prompt_learner.ctx"], found["prompt_learner_2.ctx"])


def test_probabilities_are_averaged_and_one_model_predicts_its_own_logits(backbone: Backbone) -> None:
    method, images = make_upl(backbone), make_images().pixels
    train(method)
    features = backbone.scale * F.normalize(backbone.clip_model.encode_image(images), dim=-1)
    each = [features @ method.text(name).t() for name in method.learners]
    torch.testing.assert_close(method.predict(images).exp(), sum(x.softmax(dim=1) for x in each) / 2)
    alone = make_upl(backbone, ensemble=1)
    torch.testing.assert_close(alone.predict(images), features @ alone.text("prompt_learner").t())
    assert (method.ensemble_size, alone.ensemble_size) == (2, 1)


def test_the_loss_is_cross_entropy_and_reports_are_means_over_the_members(backbone: Backbone) -> None:
    method = make_upl(backbone)
    batch = next(iter(method.begin_epoch(0)))
    losses, right = [], []
    with torch.no_grad():
        for name, (views, labels, _) in method.examples(batch).items():
            features = F.normalize(backbone.clip_model.encode_image(views), dim=-1)
            logits = backbone.scale * features @ method.text(name).t()
            losses.append(float(-logits.log_softmax(dim=1)[range(len(labels)), labels].mean()))
            right.append(100 * float((logits.argmax(dim=1) == labels).float().mean()))
    reported = method.step(batch)
    assert reported == pytest.approx({"loss": sum(losses) / 2, "acc": sum(right) / 2}, rel=1e-4)


def test_coop_learns_from_batches_with_labels(backbone: Backbone) -> None:
    images = make_images()
    batches = [{"img": images.pixels[i : i + 6], "label": images.truth[i : i + 6]} for i in range(0, COUNT, 6)]
    method = CoOp(batches, backbone, CoOpSettings(n_ctx=4), Runtime(1), optimizer, 6, "COOP")
    losses = train(method)
    assert [len(steps) for steps in losses] == [3] * 6 and list(method.models) == ["prompt_learner"]
    assert sum(x["loss"] for x in losses[-1]) < sum(x["loss"] for x in losses[0])
    assert method.schedulers["prompt_learner"].last_epoch == 6  # stepped once an epoch


@pytest.mark.parametrize("form", [{"csc": True, "class_token_position": "middle"}, {"ctx_init": "a photo of a"}])
def test_coop_s_forms_of_prompts_train_and_load(backbone: Backbone, form: dict[str, Any]) -> None:
    images = make_images()
    batches = [{"img": images.pixels[:6], "label": images.truth[:6]}]
    first, second = (CoOp(batches, backbone, CoOpSettings(n_ctx=2, **form), Runtime(1), optimizer, 1, "COOP")
                     for _ in range(2))  # fmt: skip
    before = weights(first)
    train(first)
    assert not torch.equal(before["prompt_learner.ctx"], weights(first)["prompt_learner.ctx"])
    load(second, saved(first))
    assert torch.equal(first.predict(images.pixels), second.predict(images.pixels))


def test_logits_of_bf16_are_no_coarser_than_the_features(backbone: Backbone) -> None:
    method = make_upl(backbone, Runtime(1, dtype=torch.bfloat16), ensemble=1)
    logits = method.predict(make_images().pixels)
    assert logits.dtype == torch.float32 and not torch.equal(logits, logits.bfloat16().float())


# -------------------------------------------------------------------- GRIP


def test_the_number_of_pseudo_labels_grows_to_all_images() -> None:
    assert [linear_quota(i, 10, 1000, 10) for i in range(1, 11)] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert [linear_quota(i, 3, 60, 3) for i in (1, 2, 3)] == [6, 13, 20]
    assert linear_quota(1, 10, 20, 100) == 1


def test_every_round_labels_with_the_prompts_before_and_begins_afresh(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make_grip(backbone)
    assert method.epochs == 6 and method.quota(1) == 2
    begin, rounds, epochs = method.begin_round, [], []

    def watched(number: int) -> None:
        expected = select_seeds(method.predict(method.images.pixels), linear_quota(number, 3, COUNT, 3))
        contexts = [learner.ctx.clone() for learner in method.learners.values()]
        begin(number)
        same = len(set(pairs(method.labels)) & set(pairs(expected)))
        assert same > 0.9 * len(expected.index)  # sums in another order may swap near ties
        rounds.append((number, len(method.labels.index)))
        for old, learner in zip(contexts, method.learners.values(), strict=True):
            assert not torch.equal(old, learner.ctx)
            assert float(learner.ctx.detach().std()) == pytest.approx(0.02, rel=0.25)
        for made in method.optimizers.values():
            assert made.phase == number and not made.optimizer.state_dict()["state"]
            assert made.param_groups[0]["lr"] == 0.01

    start: Callable[[int], Any] = method.begin_epoch
    monkeypatch.setattr(method, "begin_round", watched)
    monkeypatch.setattr(method, "begin_epoch", lambda epoch: epochs.append((epoch, len(rounds))) or start(epoch))
    train(method)
    assert [number for number, _ in rounds] == [2, 3]
    assert epochs == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 2)]
    assert 6 < rounds[0][1] <= 12 and rounds[0][1] < rounds[1][1] <= 18
    assert pairs(method.labels) == pairs(method.learners["prompt_learner"].labels)


def test_contexts_of_rounds_and_members_differ(backbone: Backbone) -> None:
    method = make_grip(backbone)
    starts = [method.first_context(m, *key) for m in (0, 1) for key in ((), ("round", 2), ("round", 3))]
    for i, one in enumerate(starts):
        assert all(not torch.equal(one, other) for other in starts[:i])


@pytest.mark.parametrize(("make", "epochs"), [(make_upl, 2), (make_grip, 6)])
def test_a_resumed_run_ends_in_the_same_bits(make: Any, epochs: int, backbone: Backbone) -> None:
    whole = make(backbone)
    train(whole)
    for done in range(1, epochs):
        stopped, resumed = make(backbone), make(backbone)
        train(stopped, done)
        load(resumed, saved(stopped))
        train(resumed, start=done)
        assert_same_bits(weights(whole), weights(resumed))
        assert pairs(whole.labels) == pairs(resumed.labels)


@pytest.mark.parametrize("make", [make_upl, make_grip])
def test_mapped_tables_change_no_bit(make: Any, backbone: Backbone, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(disk_tables, "IN_MEMORY", 0)
    found = []
    for runtime in (Runtime(1), Runtime(1, allocate=disk_tables.tables_in(tmp_path))):
        method = make(backbone, runtime)
        train(method)
        found.append(weights(method))
    assert_same_bits(*found)
