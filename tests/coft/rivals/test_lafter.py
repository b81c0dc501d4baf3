"""LaFTer: a classifier trained on texts against a naive loop, and training on its labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.rivals.lafter import LaFTerSettings, train_text_classifier
from tests.coft.rivals.making import make_tuning
from tests.coft.toys import CLASSES, DIM, ToyBackbone, ToyImages, train, weights, with_trained_biases


def unit(x: Tensor) -> Tensor:
    return x / (x * x).sum(dim=-1, keepdim=True).sqrt()


def test_the_text_classifier_equals_a_naive_loop() -> None:
    torch.manual_seed(0)
    texts = [unit(torch.randn(n, 6)) for n in (2, 3, 1)]
    settings = LaFTerSettings(text_steps=3, text_lr=0.01, text_noise=0.1, label_smoothing=0.1)
    trained = train_text_classifier(texts, 10.0, settings, torch.Generator().manual_seed(7))
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
    torch.testing.assert_close(trained, unit(weight.detach()), atol=1e-5, rtol=1e-4)


def test_only_the_light_module_and_the_head_train() -> None:
    start, method = weights(make_tuning("LaFTer")), make_tuning("LaFTer")
    train(method)
    end = weights(method)
    for name in method.models:
        prefix = f"{name}.model."
        changed = {
            key.removeprefix(prefix) for key in end if key.startswith(prefix) and not torch.equal(end[key], start[key])
        }
        assert changed == {"encoder.1.bias", "encoder.3.bias", "positive"}  # the light module trains biases
    for optimizer in method.engine.optimizers.values():
        assert [group["initial_lr"] for group in optimizer.param_groups] == [1e-2, 1e-2]


def test_the_text_classifier_labels_the_images() -> None:
    def noisy(visual: nn.Module, source: torch.Generator) -> nn.Module:
        twin = with_trained_biases(visual, source)
        for parameter in twin.parameters():
            if parameter.requires_grad:
                parameter.data += torch.randn(parameter.shape, generator=source)  # as random prompts of a ViT would
        return twin

    images = ToyImages()
    method = make_tuning("LaFTer", images, backbone=ToyBackbone(images, noisy))
    method.engine.begin_epoch(0)
    clip = method.engine.clip
    features = F.normalize(clip.visual(method.engine.images.pixels), dim=-1)
    heads = {name: method.first_head(name) for name in method.models}
    for name, head in heads.items():
        assert torch.equal(method.labels[name].label, (features @ head.t()).argmax(dim=1))
        assert head.shape == (CLASSES, DIM) and bool(method.labels[name].keep.all())
    assert not torch.equal(*heads.values())
    assert LaFTerSettings().refresh == 0
