"""Tiny images and a tiny backbone, on which a method trains in a fraction of a second without a trainer."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.seeding import derive, generator
from coft.core.world import SINGLE_PROCESS, World
from coft.engine.engine import Engine
from coft.engine.runtime import Runtime
from coft.images.batches import DrawnBatch, Source, endless_draws
from coft.labelling.protocol import Batch, Method, Observer
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.method.coft import CoFT
from coft.method.coft_plus import CoFTPlus, CoFTPlusSettings, Contrast
from coft.method.coft_settings import CoFTSettings, Phase1, Phase2

COUNT, CLASSES, SIZE, DIM = 30, 3, 4, 8
PEERS = ("peer_a", "peer_b")
PARTNER = dict(zip(PEERS, reversed(PEERS), strict=True))
NOISE = {"weak": 0.2, "strong": 0.8}


class ToyImages:
    """Noisy copies of one picture per class; each process of `world` has a part of each batch.

    Attributes:
        truth: Their classes. Shape (N,).
        requests: Number of views, key and number of images of each call of `plain`.
    """

    digest = "toy images"

    def __init__(
        self,
        count: int = COUNT,
        batch_size: int = 4,
        test_batch_size: int = 7,
        size: int = SIZE,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.world = world
        source = torch.Generator().manual_seed(0)
        self.prototypes = torch.randn(CLASSES, 3, size, size, generator=source)
        self.truth = torch.arange(count) % CLASSES
        self.pixels = self.prototypes[self.truth] + 0.7 * torch.randn(count, 3, size, size, generator=source)
        self.batch_size, self.test_batch_size = batch_size, test_batch_size
        self.requests: list[tuple[int, tuple[int | str, ...], int]] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def steps(self, images: int) -> int:
        return -(-images // self.batch_size)

    def noisy(self, index: int, view: str, *key: int | str) -> Tensor:
        """A view of an image."""
        noise = torch.randn(self.pixels.shape[1:], generator=generator(view, index, *key))
        return self.pixels[index] + NOISE[view] * noise

    def views(self, index: int, num_views: int, key: Sequence[int | str]) -> Tensor:
        """Views to average for a label, the test view first. Shape (num_views, 3, size, size)."""
        return torch.stack([self.pixels[index], *(self.noisy(index, "weak", *key, n) for n in range(1, num_views))])

    def plain(self, index: Tensor | None = None, num_views: int = 1, key: Sequence[int | str] = ()) -> Iterator[Tensor]:
        chosen = range(len(self)) if index is None else index.tolist()
        self.requests.append((num_views, tuple(key), len(chosen)))
        for start in range(0, len(chosen), self.test_batch_size):
            rows = torch.stack([self.views(i, num_views, key) for i in chosen[start : start + self.test_batch_size]])
            yield rows[:, 0] if num_views == 1 else rows

    def batches(
        self,
        kinds: Sequence[str],
        streams: Mapping[str, Sequence[Source]],
        steps: int,
        *key: int | str,
        fixed_key: Sequence[int | str] = (),
        num_fixed_views: int = 0,
    ) -> list[dict[str, DrawnBatch]]:
        def of_draw(draw: tuple[str, int, int]) -> tuple[int | str, ...]:
            return (*fixed_key, derive(*key, *draw) % num_fixed_views) if num_fixed_views else (*key, draw[2])

        draws = {
            model: [(endless_draws(s.name, s.index, derive(*key, s.name)), s.size) for s in each if s.size]
            for model, each in streams.items()
        }
        return [
            {
                model: self._drawn(kinds, [d for draw, n in each for d in islice(draw, n)], of_draw)
                for model, each in draws.items()
            }
            for _ in range(steps)
        ]

    def _drawn(
        self, kinds: Sequence[str], draws: Sequence[tuple[str, int, int]], of_draw: Callable[..., Any]
    ) -> DrawnBatch:
        position = torch.arange(len(draws))[self.world.part(len(draws))]
        rows = [[self.noisy(d[1], v, *of_draw(d)) for v in kinds] for d in (draws[p] for p in position.tolist())]
        views = torch.stack([torch.stack(row) for row in rows]) if rows else None
        index = torch.tensor([index for _, index, _ in draws])
        return DrawnBatch(index, position, views if views is None or len(kinds) > 1 else views[:, 0])


class ToyPrompts(nn.Module):
    """A positive and a negative context, added to a word of each class."""

    words: Tensor

    def __init__(self, words: Tensor, context: Tensor, noise: Tensor) -> None:
        super().__init__()
        self.register_buffer("words", words, persistent=False)
        self.positive, self.negative = nn.Parameter(context), nn.Parameter(context + noise)

    def forward(self) -> tuple[Tensor, Tensor]:
        return tuple(F.normalize(self.words + torch.tanh(c), dim=-1) for c in (self.positive, self.negative))  # type: ignore[return-value]


def with_trained_biases(visual: nn.Module, source: torch.Generator) -> nn.Module:
    """A copy with trainable biases that shares the other weights."""
    shared: dict[int, Any] = {id(p): p for name, p in visual.named_parameters() if not name.endswith("bias")}
    twin = copy.deepcopy(visual, memo=shared)
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    return twin


class ToyBackbone:
    """An encoder of two layers, and words near the features of their class.

    Args:
        images: Their prototypes give the words.
        light: Adds a light module to the encoder.
        dtype: Data type of all weights.
    """

    def __init__(
        self,
        images: ToyImages,
        light: Callable[[nn.Module, torch.Generator], nn.Module] = with_trained_biases,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        source = torch.Generator().manual_seed(1)
        self.visual: nn.Module = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * SIZE**2, 12), nn.Tanh(), nn.Linear(12, DIM)
        ).requires_grad_(False)
        for parameter in self.visual.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source) * parameter.shape[-1] ** -0.5)
        self.visual.to(dtype)
        self.light, self.scale = light, 6.0
        self.classnames = [f"class {c}" for c in range(CLASSES)]
        self.identity = {"backbone": "toy"}
        means = F.normalize(self.visual(images.prototypes.to(dtype)), dim=-1)
        self.words = [means + 0.4 * torch.randn(CLASSES, DIM, generator=source).to(means) for _ in range(2)]
        self.lights: list[str] = []

    def member(self, number: int) -> ToyBackbone:
        return self

    def zero_shot_text(self) -> Tensor:
        return F.normalize(sum(self.words), dim=-1)

    def encode(self, images: Tensor) -> Tensor:
        return F.normalize(self.visual(images), dim=-1)

    def cached_features(
        self, images: ToyImages, num_views: int, key: Sequence[int | str], compute: Callable[[], Tensor]
    ) -> Tensor:
        return compute()

    def prompts(self, number: int, num_ctx: int, source: torch.Generator) -> nn.Module:
        words = self.words[number]
        context = torch.randn(1, DIM, generator=source).to(words) * (0.02 if num_ctx else 0)
        return ToyPrompts(words, context, 0.01 * torch.randn(1, DIM, generator=source).to(words))

    def light_module(self, name: str, source: torch.Generator) -> nn.Module:
        self.lights.append(name)
        return self.light(self.visual, source)


class Recorder(Observer):
    """Records the pseudo-labels of a method."""

    def __init__(self) -> None:
        self.chosen: list[tuple[PseudoLabels, Tensor, Tensor]] = []
        self.filtered: list[tuple[dict[str, PseudoLabels], list[float]]] = []
        self.labels: list[tuple[dict[str, Predictions], dict[str, PseudoLabels], dict[str, str]]] = []

    def seeds_chosen(self, seeds: PseudoLabels, label: Tensor, quotas: Tensor) -> None:
        self.chosen.append((seeds, label, quotas))

    def seeds_filtered(self, seeds: Mapping[str, PseudoLabels]) -> None:
        self.filtered.append(dict(seeds))

    def labelled(
        self, predictions: Mapping[str, Predictions], labels: Mapping[str, PseudoLabels], sources: Mapping[str, str]
    ) -> None:
        self.labels.append((dict(predictions), dict(labels), dict(sources)))


SHORT: dict[str, Any] = {"seeds_per_class": 2, "label_views": 2}
PHASES: dict[str, Any] = {
    "phase1": Phase1(epochs=2, min_steps=4),
    "phase2": Phase2(epochs=3, lr=1e-3),
}


def make_method(
    make: Callable[..., Any],
    *args: Any,
    images: Any = None,
    backbone: Any = None,
    runtime: Any = None,
    seed: int = 1,
    make_light: Any = None,
    **options: Any,
) -> Any:
    """A method with an engine, on toy images and a toy backbone unless others are given.

    Args:
        make: The class of the method.
        *args: Arguments after the engine.
        images: Images.
        backbone: Backbone.
        runtime: Runtime; by default one with `seed`.
        seed: Random seed.
        make_light: Makes the optimizer of prompts and light modules; by default the engine's.
        **options: Further arguments of the method.
    """
    images = images or ToyImages()
    light = {} if make_light is None else {"make_light": make_light}
    engine = Engine(images, backbone or ToyBackbone(images), runtime or Runtime(seed), **light)
    method = make(engine, *args, **options)
    engine.attach(method)
    return method


def make_coft(settings: Mapping[str, Any] | None = None, seed: int = 1, **options: Any) -> CoFT:
    """CoFT on toy images: two epochs of Phase I and three of Phase II.

    Args:
        settings: Settings that replace the short ones.
        seed: Random seed.
        **options: `observer`, and arguments of `make_method` or of CoFT.
    """
    short = CoFTSettings(**(SHORT | PHASES | dict(settings or {})))
    return make_method(
        options.pop("make", CoFT), short, options.pop("observer", None) or Recorder(), seed=seed, **options
    )


def make_plus(settings: Mapping[str, Any] | None = None, seed: int = 1, **options: Any) -> CoFTPlus:
    """CoFT+ on toy images with two rounds of Phase I. Arguments are those of `make_coft`, and `describe`."""
    parts: dict[str, Any] = {"rounds": 2, "contrast": Contrast(0.5)}
    short = CoFTPlusSettings(**(SHORT | PHASES | parts | dict(settings or {})))
    return make_method(CoFTPlus, short, options.pop("observer", None) or Recorder(), seed=seed, **options)


def train(method: Any, until: int | None = None, start: int = 0) -> list[list[dict[str, float]]]:
    """Train a method; returns the losses of every step by epoch."""
    if not start:
        method.engine.begin()
    return [run_epoch(method, epoch) for epoch in range(start, method.epochs if until is None else until)]


def run_epoch(method: Any, epoch: int) -> list[dict[str, float]]:
    """Train one epoch; returns the losses of every step."""
    losses = [method.engine.step(batch) for batch in method.engine.begin_epoch(epoch)]
    method.engine.end_epoch()
    return losses


def begin_at(method: Any, epoch: int = 0) -> list[dict[str, DrawnBatch]]:
    """Begin an epoch without training before; returns its batches."""
    method.engine.begin()
    return list(method.engine.begin_epoch(epoch))


def whole_batch(method: Any, name: str, batch: Mapping[str, DrawnBatch]) -> Batch:
    """The batch of a model as a single part."""
    (part,) = method.engine.parts(name, batch[name])
    return part


def checkpoint_of(method: Any) -> bytes:
    """The checkpoint of a method and its optimizers."""
    file, engine = io.BytesIO(), method.engine
    parts = (method.models, engine.optimizers, engine.schedulers)
    states = [{name: part.state_dict() for name, part in each.items()} for each in parts]
    torch.save([method.state_dict(), *states], file)
    return file.getvalue()


def load(method: Any, checkpoint: bytes) -> None:
    """Resume from a checkpoint."""
    state, *states = torch.load(io.BytesIO(checkpoint), weights_only=True)
    engine = method.engine
    method.load_state_dict(state)
    for parts, values in zip((method.models, engine.optimizers, engine.schedulers), states, strict=True):
        for name, value in values.items():
            parts[name].load_state_dict(value)
    engine.loaded()
    engine.resumed()


def weights(method: Method) -> dict[str, Tensor]:
    """All tensors of the models of a method."""
    return {
        f"{name}.{key}": value.clone()
        for name, model in method.models.items()
        for key, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }


def assert_same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys() and a
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different, different


def assert_resumes(make: Callable[[], Any]) -> None:
    """Resume from the checkpoint of each epoch and compare weights, labels and predictions with the whole run."""
    whole, checkpoints = make(), list[bytes]()
    whole.engine.begin()
    for epoch in range(whole.epochs):
        run_epoch(whole, epoch)
        checkpoints.append(checkpoint_of(whole))
    pixels = whole.engine.images.pixels
    for done, checkpoint in enumerate(checkpoints, start=1):
        resumed = make()
        load(resumed, checkpoint)
        train(resumed, start=done)
        assert_same_bits(weights(whole), weights(resumed))
        assert torch.equal(whole.engine.predict(pixels), resumed.engine.predict(pixels))
        for name, labels in whole.labels.items():
            assert_same_bits(labels.state_dict(), resumed.labels[name].state_dict())


class OtherSecondPeer(ToyBackbone):
    """A backbone that gives the second peer other initial prompts."""

    def prompts(self, number: int, num_ctx: int, source: torch.Generator) -> Any:
        prompts: Any = super().prompts(number, num_ctx, source)
        prompts.positive.data += 0.3 * number
        return prompts


def pairs(labels: PseudoLabels) -> list[tuple[int, int]]:
    """Images and their labels."""
    return list(zip(labels.index.tolist(), labels.label.tolist(), strict=True))


def random_logits(count: int, classes: int, seed: int) -> Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)) * 3


def clusters(per_class: int = 40, width: int = 8, noise: float = 0.2) -> tuple[Tensor, Tensor]:
    """Unit features around one direction per class, and their classes."""
    source = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(CLASSES, width, generator=source), dim=1)
    label = torch.arange(CLASSES).repeat(per_class)
    features = centres[label] + noise * torch.randn(len(label), width, generator=source)
    return F.normalize(features, dim=1), label
