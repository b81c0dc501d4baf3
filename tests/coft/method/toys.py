"""Images and a backbone of a few numbers: a method trains on them in a fraction of a second, without a trainer."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.seeding import generator
from coft.core.world import ALONE, World
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.method.coft import CoFT
from coft.method.coft_plus import CoFTPlus, CoFTPlusSettings, Contrast
from coft.method.coft_settings import CoFTSettings, Phase1, Phase2
from coft.method.protocol import Batch, Method, Observer, Runtime

COUNT, CLASSES, SIZE, DIM = 30, 3, 4, 8
PEERS = ("peer_a", "peer_b")
PARTNER = dict(zip(PEERS, reversed(PEERS), strict=True))
NOISE = {"weak": 0.2, "strong": 0.8}


class ToyImages:
    """Noisy copies of one picture for each class; `world` has a part of each batch.

    Attributes:
        truth: Their classes. Shape (N,).
        asked: Views, keys and numbers of images that `plain` was asked for.
    """

    digest = "toy images"

    def __init__(
        self,
        count: int = COUNT,
        batch_size: int = 4,
        test_batch_size: int = 7,
        size: int = SIZE,
        world: World = ALONE,
    ) -> None:
        self.world = world
        source = torch.Generator().manual_seed(0)
        self.prototypes = torch.randn(CLASSES, 3, size, size, generator=source)
        self.truth = torch.arange(count) % CLASSES
        self.pixels = self.prototypes[self.truth] + 0.7 * torch.randn(count, 3, size, size, generator=source)
        self.batch_size, self.test_batch_size = batch_size, test_batch_size
        self.asked: list[tuple[int, tuple[int | str, ...], int]] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def steps(self, images: int) -> int:
        return -(-images // self.batch_size)

    def noisy(self, index: int, view: str, *key: int | str) -> Tensor:
        """A view of an image."""
        noise = torch.randn(self.pixels.shape[1:], generator=generator(view, index, *key))
        return self.pixels[index] + NOISE[view] * noise

    def views(self, index: int, num_views: int, key: Sequence[int | str]) -> Tensor:
        """Views that a label is the mean of, the test's first. Shape (num_views, 3, size, size)."""
        return torch.stack([self.pixels[index], *(self.noisy(index, "weak", *key, n) for n in range(1, num_views))])

    def plain(self, index: Tensor | None = None, num_views: int = 1, key: Sequence[int | str] = ()) -> Iterator[Tensor]:
        chosen = range(len(self)) if index is None else index.tolist()
        self.asked.append((num_views, tuple(key), len(chosen)))
        for start in range(0, len(chosen), self.test_batch_size):
            rows = torch.stack([self.views(i, num_views, key) for i in chosen[start : start + self.test_batch_size]])
            yield rows[:, 0] if num_views == 1 else rows

    def batches(
        self,
        view: str,
        index: Mapping[str, Tensor],
        steps: int,
        *key: int | str,
        sizes: Mapping[str, int] | None = None,
    ) -> Sequence[Batch]:
        result: list[dict[str, Any]] = [{} for _ in range(steps)]
        for name, which in index.items():
            size = min((sizes or {}).get(name, self.batch_size), len(which))
            if not size:
                continue
            source, order = generator(*key, name), torch.empty(0, dtype=torch.long)
            while len(order) < steps * size:
                order = torch.cat([order, which[torch.randperm(len(which), generator=source)]])
            for step in range(steps):
                whole = order[step * size : (step + 1) * size]
                mine = whole[self.world.part(size)]
                result[step][name] = {"index": mine, **({} if self.world.alone else {"batch": whole})}
                if not len(mine):
                    continue
                views = [[self.noisy(i, v, *key, name, step) for v in view.split(" and ")] for i in mine.tolist()]
                stacked = torch.stack([torch.stack(each) for each in views])
                result[step][name]["view"] = stacked if " and " in view else stacked[:, 0]
        return result


class ToyPrompts(nn.Module):
    """A positive and a negative context, added to a word of each class."""

    words: Tensor

    def __init__(self, words: Tensor, context: Tensor, noise: Tensor) -> None:
        super().__init__()
        self.register_buffer("words", words, persistent=False)
        self.positive, self.negative = nn.Parameter(context), nn.Parameter(context + noise)

    def forward(self) -> tuple[Tensor, Tensor]:
        return tuple(F.normalize(self.words + torch.tanh(c), dim=-1) for c in (self.positive, self.negative))  # type: ignore[return-value]


def biases_alone(visual: nn.Module, source: torch.Generator) -> nn.Module:
    """A copy whose biases train; the other weights are the encoder's own."""
    shared: dict[int, Any] = {id(p): p for name, p in visual.named_parameters() if not name.endswith("bias")}
    twin = copy.deepcopy(visual, memo=shared)
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    return twin


class ToyBackbone:
    """An encoder of two layers, and words that lie near the features of their class.

    Args:
        images: Words are made of their prototypes.
        light: Makes the encoder with a light module.
        dtype: Of all weights.
    """

    def __init__(
        self,
        images: ToyImages,
        light: Callable[[nn.Module, torch.Generator], nn.Module] = biases_alone,
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

    def on(self, device: torch.device) -> ToyBackbone:
        if device == self.words[0].device:
            return self
        twin = copy.deepcopy(self)
        twin.visual.to(device)
        twin.words = [words.to(device) for words in self.words]
        return twin

    def zero_shot_text(self) -> Tensor:
        return F.normalize(sum(self.words), dim=-1)

    def image_features(self, images: Any, num_views: int = 1, key: Sequence[int | str] = ()) -> Tensor:
        rows = []
        for batch in images.plain(images.world.index(len(images)), num_views, key):
            views = batch.unsqueeze(1) if num_views == 1 else batch
            rows.append(torch.stack([F.normalize(self.visual(v), dim=-1) for v in views.unbind(1)]).mean(dim=0))
        return torch.cat(rows)

    def prompts(self, number: int, num_ctx: int, source: torch.Generator) -> nn.Module:
        words = self.words[number]
        context = torch.randn(1, DIM, generator=source).to(words) * (0.02 if num_ctx else 0)
        return ToyPrompts(words, context, 0.01 * torch.randn(1, DIM, generator=source).to(words))

    def light_module(self, name: str, source: torch.Generator) -> nn.Module:
        self.lights.append(name)
        return self.light(self.visual, source)


class Seen(Observer):
    """Remembers what a method does with pseudo-labels."""

    def __init__(self) -> None:
        self.chosen: list[tuple[PseudoLabels, Tensor, Tensor]] = []
        self.filtered: list[tuple[dict[str, PseudoLabels], list[float]]] = []
        self.labels: list[tuple[dict[str, Predictions], dict[str, PseudoLabels], dict[str, str]]] = []

    def seeds_chosen(self, seeds: PseudoLabels, logits: Tensor, quotas: Tensor) -> None:
        self.chosen.append((seeds, logits.clone(), quotas))

    def seeds_filtered(self, seeds: Mapping[str, PseudoLabels], separation: Sequence[float]) -> None:
        self.filtered.append((dict(seeds), list(separation)))

    def labelled(self, predictions: Mapping[str, Predictions], labels: Mapping[str, PseudoLabels]) -> None:
        self.labels.append((dict(predictions), dict(labels)))


SHORT: dict[str, Any] = {"seeds_per_class": 2, "label_views": 2}
PHASES: dict[str, Any] = {
    "phase1": Phase1(epochs=2, min_steps=4),
    "phase2": Phase2(epochs=3, lr=1e-3, refresh=2),
}


def make_coft(settings: Mapping[str, Any] | None = None, seed: int = 1, **options: Any) -> CoFT:
    """CoFT on toys: two epochs of Phase I and three of Phase II.

    Args:
        settings: In the place of the short ones.
        seed: Of everything random.
        **options: `images`, `backbone` and `observer` in the place of fresh toys; `make` in that of CoFT; others are
            CoFT's own.
    """
    images = options.pop("images", None) or ToyImages()
    backbone = options.pop("backbone", None) or ToyBackbone(images)
    runtime = options.pop("runtime", None) or Runtime(seed)
    own = CoFTSettings(**(SHORT | PHASES | dict(settings or {})))
    return options.pop("make", CoFT)(images, backbone, own, runtime, options.pop("observer", None) or Seen(), **options)


def make_plus(settings: Mapping[str, Any] | None = None, seed: int = 1, **options: Any) -> CoFTPlus:
    """CoFT+ on toys, two rounds of Phase II. Arguments as of `make_coft`, and `describe`."""
    images = options.pop("images", None) or ToyImages()
    backbone = options.pop("backbone", None) or ToyBackbone(images)
    parts: dict[str, Any] = {"rounds": 2, "contrast": Contrast(0.5)}
    own = CoFTPlusSettings(**(SHORT | PHASES | parts | dict(settings or {})))
    observer = options.pop("observer", None) or Seen()
    runtime = options.pop("runtime", None) or Runtime(seed)
    return CoFTPlus(images, backbone, own, runtime, observer=observer, **options)


def train(method: Method, until: int | None = None, start: int = 0) -> list[list[dict[str, float]]]:
    """Run a method as the protocol says.

    Returns:
        Losses of every step, by epoch.
    """
    if not start:
        method.begin()
    losses = []
    for epoch in range(start, method.epochs if until is None else until):
        losses.append([method.step(batch) for batch in method.begin_epoch(epoch)])
        method.end_epoch(epoch)
    return losses


def begun(method: Any, epoch: int = 0) -> list[Batch]:
    """Bring a method to the beginning of an epoch without training before.

    Returns:
        Its batches.
    """
    method.begin()
    return list(method.begin_epoch(epoch))


def saved(method: Method) -> bytes:
    """A checkpoint, as of a trainer of Dassl."""
    file = io.BytesIO()
    parts = (method.models, method.optimizers, method.schedulers)
    torch.save([{name: part.state_dict() for name, part in each.items()} for each in parts], file)
    return file.getvalue()


def load(method: Method, checkpoint: bytes) -> None:
    """Go on from a checkpoint."""
    states = torch.load(io.BytesIO(checkpoint), weights_only=True)
    for each, own in zip((method.models, method.optimizers, method.schedulers), states, strict=True):
        for name, state in own.items():
            each[name].load_state_dict(state)
    method.loaded()


def weights(method: Method) -> dict[str, Tensor]:
    """All tensors of a method's models."""
    return {
        f"{name}.{key}": value.clone()
        for name, model in method.models.items()
        for key, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }


def assert_same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different, different


def pairs(labels: PseudoLabels) -> list[tuple[int, int]]:
    """Images and their labels."""
    return list(zip(labels.index.tolist(), labels.label.tolist(), strict=True))
