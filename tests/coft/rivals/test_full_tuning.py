"""Self-training, full supervision and LaFTer on toys: full fine-tuning with labels of different sources."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core import disk_tables
from coft.method.protocol import Runtime
from coft.rivals.full_tuning import FullTuning, Supervised, SupervisedSettings
from coft.rivals.lafter import LaFTer, LaFTerSettings, train_text_classifier
from coft.rivals.self_training import SelfTraining, SelfTrainingSettings
from tests.coft.method.test_coft_seeds import without_prior
from tests.coft.method.toys import (
    CLASSES,
    COUNT,
    DIM,
    Seen,
    ToyBackbone,
    ToyImages,
    assert_same_bits,
    load,
    make_coft,
    saved,
    train,
    weights,
)


def texts() -> list[Tensor]:
    """Two texts of each class, the templates of the toy."""
    words = torch.stack(ToyBackbone(ToyImages()).words)
    return list(F.normalize(words, dim=-1).unbind(dim=1))


def make(kind: str, runtime: Runtime | None = None, images: ToyImages | None = None, **settings: Any) -> FullTuning:
    images = images or ToyImages()
    parts = (images, ToyBackbone(images))
    run, seen, short = runtime or Runtime(1), Seen(), {"epochs": 2, "lr": 1e-2} | settings
    if kind == "Supervised":
        return Supervised((images.truth + 1) % CLASSES, *parts, SupervisedSettings(**short), run, seen)
    if kind == "LaFTer":
        return LaFTer(texts, *parts, LaFTerSettings(**({"text_steps": 20} | short)), run, seen)
    return SelfTraining(*parts, SelfTrainingSettings(**short), run, seen)


KINDS = pytest.mark.parametrize("kind", ["SelfTraining", "Supervised", "LaFTer"])
FULL = pytest.mark.parametrize("kind", ["SelfTraining", "Supervised"])


def zero_shot(method: Any) -> Tensor:
    features = F.normalize(method.backbone.visual(method.images.pixels), dim=-1)
    return method.backbone.scale * features @ method.backbone.zero_shot_text().t()


@FULL
def test_every_model_starts_as_the_zero_shot_classifier(kind: str) -> None:
    method = make(kind)
    torch.testing.assert_close(method.predict(method.images.pixels).exp(), zero_shot(method).softmax(dim=1))
    assert list(method.models) == ["model_1", "model_2"] and method.ensemble_size == 2


@FULL
def test_models_differ_and_all_their_encoders_weights_train(kind: str) -> None:
    start, method = weights(make(kind)), make(kind)
    losses = train(method)
    assert set(losses[0][0]) == {"loss_1", "loss_2"} and [len(steps) for steps in losses] == [8, 8]
    end = weights(method)
    first = [key for key in end if key.startswith("model_1.student.")]
    still = [key for key in first if torch.equal(end[key], start[key])]
    assert still == ["model_1.student.negative"]  # there is no dual loss
    moved = [key for key in first if key not in still]
    assert all(not torch.equal(end[key], end[key.replace("model_1", "model_2")]) for key in moved)


@KINDS
def test_it_learns_from_strong_views_in_batches_of_each_model(kind: str) -> None:
    method = make(kind)
    method.begin()
    for epoch in (0, 1):
        batches = list(method.begin_epoch(epoch))
        index = {name: method.labels[name].index for name in method.models}
        wanted = method.images.batches("strong", index, 8, 1, method.key, epoch)
        for ours, expected in zip(batches, wanted, strict=True):
            for name in method.models:
                assert torch.equal(ours[name]["view"], expected[name]["view"])
        assert not torch.equal(*(batches[0][name]["index"] for name in method.models))


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_pseudo_labels_are_the_argmax_of_the_average_with_the_prior_corrected(tau: float) -> None:
    method = make("SelfTraining", refresh=1, prior_tau=tau)
    labelled = []
    label = method.label

    def watched() -> Any:
        expected = {}
        for name, peer in method.peers.items():
            with torch.no_grad():
                logits = peer.ema.module(method.images.pixels)[0].double()
            prior = [sum(float(p) for p in logits.softmax(dim=1)[:, c]) / COUNT for c in range(CLASSES)]
            scores = [[float(x) - tau * math.log(p) for x, p in zip(row, prior, strict=True)] for row in logits]
            expected[name] = [row.index(max(row)) for row in scores]
        labelled.append(expected)
        return label()

    method.label = watched  # type: ignore[method-assign]
    train(method)
    assert len(labelled) == 2
    reported = [given for _, given in method.observer.labels]
    for expected, given in zip(labelled, reported, strict=True):
        assert {name: own.label.tolist() for name, own in given.items()} == expected
        assert all(bool((own.weight == 1).all()) for own in given.values())
    if not tau:
        assert reported[0]["model_1"].label.tolist() == zero_shot(method).argmax(dim=1).tolist()


def test_self_training_as_coft_begins_with_coft_s_labels_and_goes_on_with_its_views() -> None:
    coft = make_coft({"label_views": 3})
    coft.begin()
    first = coft.observer.chosen[0][1].argmax(dim=1).tolist()
    method: Any = make("SelfTraining", refresh=1, as_coft=True)
    train(method, 1)
    assert {name: own.label.tolist() for name, own in method.labels.items()} == dict.fromkeys(method.peers, first)
    assert first != without_prior(zero_shot(method).double()).argmax(dim=1).tolist()
    views = torch.stack([method.images.views(i, 3, (1, "labels", 1)) for i in range(COUNT)])
    expected = {}
    for name, peer in method.peers.items():
        with torch.no_grad():
            logits = sum(peer.ema.module(views[:, n])[0].double() for n in range(3)) / 3
        expected[name] = without_prior(logits).argmax(dim=1).tolist()
    method.begin_epoch(1)
    assert {name: own.label.tolist() for name, own in method.labels.items()} == expected
    assert [set(given) for _, given in method.observer.labels] == [set(method.peers)] * 2
    assert {asked[:2] for asked in method.images.asked} == {(3, (1, "labels", 0)), (3, (1, "labels", 1))}


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("SelfTraining", {"epochs": 5}, [0, 2, 4]),
        ("SelfTraining", {"epochs": 5, "refresh": 0}, [0]),
        ("LaFTer", {"epochs": 6, "text_steps": 5}, [0]),
        ("LaFTer", {"epochs": 6, "text_steps": 5, "refresh": 5}, [0, 5]),
        ("Supervised", {"epochs": 4}, [0]),
    ],
)
def test_labels_are_renewed_every_few_epochs(kind: str, settings: dict[str, Any], expected: list[int]) -> None:
    method, epochs, label = make(kind, **settings), [], None
    label = method.label
    for epoch in range(method.epochs):
        method.label = lambda e=epoch: epochs.append(e) or label()  # type: ignore[method-assign,misc]
        method.begin_epoch(epoch)
    assert epochs == expected


@FULL
def test_the_loss_is_cross_entropy_adjusted_by_the_labels_frequencies(kind: str) -> None:
    images = ToyImages(10)
    method = make(kind, images=images)
    batch = next(iter(method.begin_epoch(0)))
    part, labels = batch["model_1"], method.labels["model_1"].label.tolist()
    with torch.no_grad():
        logits = method.peers["model_1"].learner()(part["view"])[0].double()
    counts = [labels.count(c) + 1 for c in range(CLASSES)]
    expected = 0.0
    for row, i in zip(logits, part["index"].tolist(), strict=True):
        adjusted = [float(row[c]) + math.log(counts[c] / sum(counts)) for c in range(CLASSES)]
        expected += math.log(sum(map(math.exp, adjusted))) - adjusted[labels[i]]
    assert method.step(batch)["loss_1"] == pytest.approx(expected / len(logits), abs=1e-4)


def test_supervision_leaves_out_images_whose_label_is_unknown() -> None:
    images = ToyImages()
    truth = torch.where(torch.arange(COUNT) % 4 == 0, -1, images.truth)
    method = Supervised(truth, images, ToyBackbone(images), SupervisedSettings(epochs=15, lr=1e-2), Runtime(1))
    train(method)
    known = [i for i in range(COUNT) if i % 4]
    for labels in method.labels.values():
        assert labels.index.tolist() == known and torch.equal(labels.label, images.truth[known])
    assert (method.predict(images.pixels).argmax(dim=1) == images.truth)[known].all()


@FULL
def test_what_is_tested_is_averaged_with_the_start(kind: str) -> None:
    method = make(kind, ensemble=3, wise=0.25)
    train(method)
    assert method.ensemble_size == 3
    reported = method.predict(method.images.pixels)
    probabilities = []
    for peer in method.peers.values():
        start, end = method.backbone.visual[1].weight, peer.ema.module.encoder[1].weight
        model = peer.inference_model(0.25)
        torch.testing.assert_close(model.encoder[1].weight, 0.75 * start + 0.25 * end)
        probabilities.append(model(method.images.pixels)[0].softmax(dim=1))
    torch.testing.assert_close(reported.exp(), sum(probabilities) / 3)


@KINDS
def test_a_resumed_run_ends_in_the_same_bits(kind: str) -> None:
    for done in (1, 2):
        settings = {"epochs": 3, "refresh": 2} if kind != "Supervised" else {"epochs": 3}
        whole, stopped, resumed = (make(kind, **settings) for _ in range(3))
        train(whole)
        train(stopped, done)
        load(resumed, saved(stopped))
        train(resumed, start=done)
        assert_same_bits(weights(whole), weights(resumed))
        assert torch.equal(whole.predict(whole.images.pixels), resumed.predict(whole.images.pixels))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_models_that_step_at_the_same_time_do_what_they_do_in_turn() -> None:
    found = []
    for together in (True, False):
        method = make("Supervised", Runtime(1, parallel=together))
        train(method)
        found.append(weights(method))
    assert_same_bits(*found)


def test_mapped_tables_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_tables, "IN_MEMORY", 0)
    found = []
    for runtime in (Runtime(1), Runtime(1, allocate=disk_tables.tables_in(tmp_path))):
        method = make("SelfTraining", runtime, refresh=1)
        train(method)
        found.append(weights(method))
    assert_same_bits(*found)
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------- LaFTer


def unit(x: Tensor) -> Tensor:
    return x / (x * x).sum(dim=-1, keepdim=True).sqrt()


def test_the_text_classifier_equals_a_naive_loop() -> None:
    torch.manual_seed(0)
    said = [unit(torch.randn(n, 6)) for n in (2, 3, 1)]
    own = LaFTerSettings(text_steps=3, text_lr=0.01, text_noise=0.1, label_smoothing=0.1)
    found = train_text_classifier(said, 10.0, own, torch.Generator().manual_seed(7))
    source, weight = torch.Generator().manual_seed(7), torch.stack([t.mean(dim=0) for t in said]).requires_grad_(True)
    optimizer = torch.optim.AdamW([weight], lr=0.01)
    for _ in range(3):
        noise = torch.randn(6, 6, generator=source)
        loss, row = torch.zeros(()), 0
        for label, rows in enumerate(said):
            for feature in rows:
                noisy = unit(feature + 0.1 * noise[row])
                logits = torch.stack([10 * (noisy * unit(w)).sum() for w in weight])
                log_p = logits - logits.exp().sum().log()
                for c in range(3):
                    share = 0.1 / 3 + (0.9 if c == label else 0)
                    loss = loss - share * log_p[c] / 6
                row += 1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(found, unit(weight.detach()), atol=1e-5, rtol=1e-4)


def test_it_tells_noisy_texts_apart_better_than_their_means() -> None:
    torch.manual_seed(1)
    centres = unit(torch.randn(4, 8))
    said = [unit(centre + 0.5 * torch.randn(20, 8) * torch.linspace(0, 2, 8)) for centre in centres]
    own = LaFTerSettings(text_steps=300, text_lr=0.01)
    trained = train_text_classifier(said, 10.0, own, torch.Generator().manual_seed(0))
    means = unit(torch.stack([t.mean(dim=0) for t in said]))
    features, labels = torch.cat(said), torch.arange(4).repeat_interleave(20)
    losses = [F.cross_entropy(10 * features @ head.t(), labels).item() for head in (trained, means)]
    assert losses[0] < losses[1] - 0.01


def test_lafter_s_light_module_and_head_train_and_nothing_else() -> None:
    start, method = weights(make("LaFTer")), make("LaFTer")
    train(method)
    for name, peer in method.peers.items():
        pre = f"{name}.student."
        own = {key.removeprefix(pre): value for key, value in weights(method).items() if key.startswith(pre)}
        moved = {key for key, value in own.items() if not torch.equal(value, start[pre + key])}
        light = {f"encoder.{key}" for key, value in peer.encoder.named_parameters() if value.requires_grad}
        assert moved == light | {"positive"} == {"encoder.1.bias", "encoder.3.bias", "positive"}
    for optimizer in method.optimizers.values():
        rates = [group["initial_lr"] for group in optimizer.param_groups]
        assert rates == [1e-2, 1e-2]


def test_lafter_s_text_classifier_labels_the_images() -> None:
    method = make("LaFTer")
    method.begin_epoch(0)
    heads = [method.first_head(name) for name in method.peers]
    for head, peer in zip(heads, method.peers.values(), strict=True):
        features = F.normalize(method.backbone.visual(method.images.pixels), dim=-1)
        assert torch.equal(peer.labels.label, (features @ head.t()).argmax(dim=1))
        assert head.shape == (CLASSES, DIM) and bool(peer.labels.keep.all())
    assert not torch.equal(*heads)
    assert LaFTerSettings().refresh == 0
