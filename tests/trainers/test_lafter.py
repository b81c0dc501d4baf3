"""LaFTer: a classifier trained on texts, then self-training of a light module."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from yacs.config import CfgNode

from coft.backbones.prompts import template_features
from coft.method.labelling import image_features
from tests.trainers.conftest import assert_same_bits, weights
from trainers.lafter import LaFTer, train_text_classifier

OWN = CfgNode({"TEXT_STEPS": 3, "TEXT_LR": 0.01, "TEXT_NOISE": 0.1, "LABEL_SMOOTHING": 0.1})


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x * x).sum(dim=-1, keepdim=True).sqrt()


def test_the_text_classifier_equals_a_naive_loop() -> None:
    torch.manual_seed(0)
    texts = [unit(torch.randn(n, 6)) for n in (2, 3, 1)]
    found = train_text_classifier(texts, 10.0, OWN, torch.Generator().manual_seed(7))
    source, weight = torch.Generator().manual_seed(7), torch.stack([t.mean(dim=0) for t in texts]).requires_grad_(True)
    optimizer = torch.optim.AdamW([weight], lr=0.01)
    for _ in range(3):
        noise = torch.randn(6, 6, generator=source)
        loss, row = torch.zeros(()), 0
        for label, rows in enumerate(texts):
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
    texts = [unit(centre + 0.5 * torch.randn(20, 8) * torch.linspace(0, 2, 8)) for centre in centres]
    own = OWN.clone()
    own.TEXT_STEPS = 300
    trained = train_text_classifier(texts, 10.0, own, torch.Generator().manual_seed(0))
    means = unit(torch.stack([t.mean(dim=0) for t in texts]))
    features, labels = torch.cat(texts), torch.arange(4).repeat_interleave(20)
    losses = [torch.nn.functional.cross_entropy(10 * features @ head.t(), labels).item() for head in (trained, means)]
    assert losses[0] < losses[1] - 0.01


@pytest.mark.parametrize("backbone", ["resnet", "vit"])
def test_the_light_module_and_the_head_train_and_nothing_else(run: Callable[..., Any], backbone: str) -> None:
    start = weights(run("LaFTer", backbone, train=False, out="start"))
    built = run("LaFTer", backbone)
    for name in built.peers:
        pre = f"{name}.student."
        moved = {k.removeprefix(pre) for k, v in weights(built).items() if k.startswith(pre) and not v.equal(start[k])}
        light = {f"encoder.{k}" for k, v in built.peers[name].encoder.named_parameters() if v.requires_grad}
        assert moved == light | {"positive"}
        assert 0 < len(light) < len(list(built.peers[name].encoder.parameters()))


def test_the_text_classifier_labels_the_images_once(run: Callable[..., Any]) -> None:
    built = run("LaFTer", TRAINER__LAFTER__TEXT_STEPS=5)
    features = image_features(built.clip_model, built.pool, built.cfg, built.device)
    for name, peer in built.peers.items():
        assert torch.equal(peer.lesson.labels, (features @ built.first_head(name).t()).argmax(dim=1))
        assert bool(peer.lesson.keep.all())
    first, second = (built.first_head(name) for name in built.peers)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("refresh", "expected"), [(0, [0]), (5, [0, 5, 10])])
def test_labels_are_made_once_however_long_it_trains(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, refresh: int, expected: list[int]
) -> None:
    taught: list[int] = []
    original = LaFTer.teach
    monkeypatch.setattr(LaFTer, "teach", lambda self: (taught.append(self.epoch), original(self))[1])
    run("LaFTer", TRAINER__LAFTER__EPOCHS=12, TRAINER__LAFTER__TEXT_STEPS=5, TRAINER__LAFTER__REFRESH=refresh)
    assert taught == expected


def test_the_default_is_to_label_once(run: Callable[..., Any]) -> None:
    assert run("LaFTer", train=False).cfg.TRAINER.LAFTER.REFRESH == 0


def test_without_descriptions_the_texts_are_the_templates(run: Callable[..., Any]) -> None:
    built = run("LaFTer", train=False)  # there are none of this data set
    for c, own in enumerate(built.texts()):
        expected = [template_features(built.clip_model, built.classnames, t)[c] for t in built.templates]
        torch.testing.assert_close(own, torch.stack(expected))


def test_descriptions_are_texts_too(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"red circle": ["round and red"], "green square": ["four corners", "like grass"], "blue stripes": ["lines"]}
    monkeypatch.setattr("trainers.lafter.descriptions_of", lambda *args: said)
    built = run("LaFTer", train=False)
    templates = len(built.templates)
    assert [len(own) - templates for own in built.texts()] == [1, 2, 1]
    sentence = template_features(built.clip_model, ["like grass a photo of a green square."], "{}")[0]
    torch.testing.assert_close(built.texts()[1][-1], sentence, atol=1e-5, rtol=1e-4)
    without = run("LaFTer", train=False, out="without", TRAINER__LAFTER__DESCRIPTIONS=False)
    assert [len(own) for own in without.texts()] == [templates] * 3


def test_a_stopped_run_goes_on_and_the_summary_tells_ensemble_and_labels(run: Callable[..., Any]) -> None:
    whole = run("LaFTer", out="whole")
    summary = json.loads((Path(whole.output_dir) / "summary.json").read_text())
    assert (summary["ensemble"], summary["labels_used"]) == (2, 0)
    assert math.isfinite(summary["results"]["accuracy_test"])
    first = run("LaFTer", out="stopped", train=False)
    original = first.forward_backward

    class Stop(Exception):
        pass

    def stop(batch: Any) -> Any:
        if first.epoch == 1:
            raise Stop
        return original(batch)

    first.forward_backward = stop
    with pytest.raises(Stop):
        first.train()
    assert_same_bits(weights(whole), weights(run("LaFTer", out="stopped")))
