"""Zero-shot accuracy of a CLIP on small data sets, through its usual interface: tokenize, encode, compare."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import clip
import numpy as np
import torch
import torch.nn.functional as F
from clip.model import CLIP
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import normalize, to_tensor

from coft.backbones.architecture import CLIP_MEAN, CLIP_STD
from weights.pretrain.heldout import classnames, development_sets, heldout
from weights.pretrain.names import DIGITS

Tokenize = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class Task:
    """A data set: preprocessed images ``[N, 3, 64, 64]``, labels ``[N]``, class names and templates."""

    name: str
    images: Tensor
    labels: Tensor
    classnames: list[str]
    templates: tuple[str, ...]


def preprocess(picture: Image.Image) -> Tensor:
    """Preprocess a picture as CLIP does, at 64 x 64: bicubic, normalised; ``[3, 64, 64]``."""
    resized = picture.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
    return normalize(to_tensor(resized), CLIP_MEAN, CLIP_STD)


def digits() -> Task:
    """Load the 1,797 handwritten UCI digits of scikit-learn, white on black."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = (bunch.images / 16 * 255).round().astype(np.uint8)
    images = torch.stack([preprocess(Image.fromarray(image)) for image in grey])
    return Task("digits", images, torch.from_numpy(bunch.target), DIGITS, ("a photo of the digit {}.",))


def heldout_task(name: str, cache_dir: Path, sources: frozenset[str] | None = None) -> Task:
    """Load the held-out drawings ``icons`` or ``emoji``, all of them or those of some sets."""
    items = [item for item in heldout(name, cache_dir) if sources is None or item.source in sources]
    names = classnames(name)
    images = torch.stack([preprocess(Image.fromarray(item.pixels)) for item in items])
    labels = torch.tensor([names.index(item.classname) for item in items])
    template = "an icon of a {}." if name == "icons" else "a photo of a {}."
    return Task(name, images, labels, names, (template,))


def development_tasks(cache_dir: Path) -> list[Task]:
    """Return the tasks on which the recipe was chosen."""
    return [digits(), heldout_task("icons", cache_dir, development_sets())]


@torch.no_grad()
def text_features(model: CLIP, names: list[str], templates: tuple[str, ...], tokenize: Tokenize) -> Tensor:
    """Compute unit-length features of class names, averaged over templates; ``[C, D]``."""
    prompts = [[template.format(name) for name in names] for template in templates]
    features = [F.normalize(model.encode_text(tokenize(texts)).float(), dim=-1) for texts in prompts]
    return F.normalize(torch.stack(features).mean(0), dim=-1)


@torch.no_grad()
def image_features(model: CLIP, images: Tensor) -> Tensor:
    """Compute unit-length image features; ``[N, D]``."""
    return torch.cat([F.normalize(model.encode_image(part).float(), dim=-1) for part in images.split(256)])


def accuracy(model: CLIP, task: Task, tokenize: Tokenize = clip.tokenize) -> float:
    """Compute the zero-shot accuracy in percent."""
    return accuracy_of(image_features(model, task.images), model, task, tokenize)


def accuracy_of(features: Tensor, model: CLIP, task: Task, tokenize: Tokenize = clip.tokenize) -> float:
    """Compute the zero-shot accuracy in percent from unit-length image features ``[N, D]``."""
    texts = text_features(model, task.classnames, task.templates, tokenize)
    return 100 * ((features @ texts.t()).argmax(1) == task.labels).float().mean().item()


def compact_tokenizer(token_ids: list[int]) -> Tokenize:
    """Build a ``clip.tokenize`` for a model over the vocabulary in use, in which other tokens become that of "x"."""
    row = torch.full((49408,), token_ids.index(clip.tokenize("x")[0, 1].item()))
    row[torch.tensor(token_ids)] = torch.arange(len(token_ids))

    def tokenize(texts: list[str]) -> Tensor:
        tokens = clip.tokenize(texts)
        return torch.where(tokens == 0, 0, row[tokens])

    return tokenize
