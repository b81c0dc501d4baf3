"""A step of a peer's Phase I, run in three ways.

plain: all 77 tokens of every class, a pass for each prompt, as CoOp and DeFT do; the blocks of both towers are CLIP's
    own, as the package `clip` runs them.
cut: the same, but no token after the longest prompt's end of text.
ours: what the project does, see coft/backbones/text_tower.py and residual_block.py.

Everything else is the same in all three, and is the project's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from clip.model import CLIP
from torch import Tensor

from coft.backbones.prompts import DualPrompts, PromptLearner, word_context
from coft.backbones.visual_tuning import PromptedViT, light_module
from coft.core.precision import PRECISIONS, step_attention
from coft.core.seeding import generator
from coft.labelling.losses import weighted_cross_entropy
from coft.method.negative_prompt import expected_dual_loss
from coft.method.peer import Peer
from dassl.config import get_cfg_default
from dassl.optim import build_optimizer
from trainers import extend_cfg

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "trainers" / "CoFT" / "vit_b16.yaml"
TEMPLATE = "a photo of a {}."
VOCABULARY, POSITIONS = 49408, 5  # tokens that CLIP knows; where a geometry has how many positions there are
# Arguments of clip.model.CLIP: embed_dim; resolution, layers, width and patch of the image tower; tokens and
# vocabulary; width, heads and layers of the text tower.
GEOMETRIES: dict[str, tuple[int, ...]] = {
    "ViT-B/32": (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
    "ViT-B/16": (512, 224, 12, 768, 16, 77, 49408, 512, 8, 12),
    "ViT-L/14": (768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12),
    "tiny": (32, 32, 2, 64, 16, 77, 49408, 64, 1, 2),  # for tests
}


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        geometry: A name of GEOMETRIES.
        way: A name of WAYS.
        classes: Number of classes C.
        batch: Number of images.
        context: Random context tokens; 0 takes the template's words.
        device: "cpu" or "cuda".
        precision: A name of coft.core.precision.PRECISIONS.
        threads: Of torch, on a CPU.
    """

    geometry: str
    way: str
    classes: int
    batch: int = 32
    context: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1

    def but(self, **changes: Any) -> Setting:
        """The setting with some of its values changed."""
        return Setting(**{**asdict(self), **changes})


def class_names(count: int) -> list[str]:
    """Names of real classes: SUN397's, then those of the other sets, then numbered ones."""
    folder = ROOT / "datasets" / "classnames"
    files = [folder / "sun397.txt", *sorted(folder.glob("*.txt"))]
    names = [name for file in files for name in file.read_text(encoding="utf-8").splitlines() if name]
    unique = list(dict.fromkeys(names))[:count]
    return unique + [f"thing {i}" for i in range(count - len(unique))]


def tokens_read(setting: Setting) -> int:
    """Tokens that the text tower reads for one prompt of all classes."""
    positions = torch.empty(GEOMETRIES[setting.geometry][POSITIONS], 1)
    tower = SimpleNamespace(token_embedding=torch.nn.Embedding(VOCABULARY, 1), positional_embedding=positions)
    head, tail = TEMPLATE.split("{}")
    context = setting.context or len(word_context(tower, head.strip()))
    lengths = PromptLearner(tower, class_names(setting.classes), torch.zeros(context, 1), tail=tail).lengths
    return {
        "plain": len(lengths) * len(positions),
        "cut": len(lengths) * (1 + context + max(lengths)),
        "ours": 1 + context + sum(lengths),
    }[setting.way]


def expected_operations(setting: Setting) -> float:
    """About how many matmul operations a step has, to reckon how long it will take."""
    _, side, layers, width, patch, _, _, text_width, _, text_layers = GEOMETRIES[setting.geometry]
    images = setting.batch * ((side // patch) ** 2 + 1) * layers * width**2
    text = 2 * tokens_read(setting) * text_layers * text_width**2
    return 12 * 2 * 2 * float(images + text)  # 12 width^2 weights a layer, twice an operation each, there and back


def read_text(clip_model: Any, embeddings: Tensor, eot: Tensor) -> Tensor:
    """Run CLIP's text tower as it is over the first tokens of prompts.

    Args:
        clip_model: A `clip.model.CLIP`.
        embeddings: Token embeddings. Shape (C, length, width).
        eot: Index of each end of text. Shape (C,).

    Returns:
        Features, not normalised. Shape (C, embed_dim).
    """
    length = embeddings.shape[1]
    x = (embeddings + clip_model.positional_embedding[:length]).permute(1, 0, 2)
    for block in clip_model.transformer.resblocks:
        h = block.ln_1(x)
        mask = block.attn_mask[:length, :length].to(dtype=x.dtype, device=x.device)
        x = x + block.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        x = x + block.mlp(block.ln_2(x))
    x = clip_model.ln_final(x.permute(1, 0, 2))
    ends = x[torch.arange(len(x), device=x.device), eot]
    with torch.autocast(x.device.type, enabled=False):
        return ends.to(clip_model.text_projection.dtype) @ clip_model.text_projection


class CutPrompts(DualPrompts):
    """Two prompts, a pass each, cut at the longest end of text."""

    def __init__(self, clip_model: Any, *args: Any, **options: Any) -> None:
        super().__init__(clip_model, *args, **options)
        self.towers = (clip_model,)  # in a tuple: no submodule

    def forward(self) -> tuple[Tensor, Tensor]:
        """Encode both prompts. Shape (C, embed_dim) each."""
        positive, negative = (
            F.normalize(read_text(self.towers[0], *self.assemble(learner)), dim=-1)
            for learner in (self.positive, self.negative)
        )
        return positive, negative

    def assemble(self, learner: PromptLearner) -> tuple[Tensor, Tensor]:
        """Token embeddings and the indices of ends of text."""
        return learner()


class PlainPrompts(CutPrompts):
    """Two prompts, a pass each, of as many tokens as the tower has positions for."""

    def assemble(self, learner: PromptLearner) -> tuple[Tensor, Tensor]:
        """Token embeddings, filled up with those of token 0, and the indices of ends of text."""
        clip_model, (embeddings, eot) = self.towers[0], learner()
        missing = clip_model.positional_embedding.shape[0] - embeddings.shape[1]
        filler = clip_model.token_embedding.weight[0].expand(len(embeddings), missing, -1)
        return torch.cat([embeddings, filler], dim=1), eot


class PlainViT(PromptedViT):
    """Visual prompt tuning with the blocks as the package `clip` runs them."""

    def run_block(self, block: Callable[[Tensor], Tensor], x: Tensor, rows: slice) -> Tensor:
        """Run a residual block for all tokens."""
        return block(x.transpose(0, 1)).transpose(0, 1)


WAYS: dict[str, type[DualPrompts]] = {"plain": PlainPrompts, "cut": CutPrompts, "ours": DualPrompts}


class Step:
    """A peer with random weights, a batch of random images, and the step that trains on it.

    Args:
        setting: What is measured.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting, self.device = setting, torch.device(setting.device)
        torch.manual_seed(0)
        geometry = GEOMETRIES[setting.geometry]
        clip_model = self.clip_model = CLIP(*geometry).float().eval().requires_grad_(False)
        names, source = class_names(setting.classes), generator("bench")
        prompts = WAYS[setting.way](clip_model, names, TEMPLATE, num_ctx=setting.context, generator=source)
        cfg = get_cfg_default()
        extend_cfg(cfg)
        cfg.merge_from_file(str(CONFIG))
        encoder = light_module(clip_model.visual, cfg.TRAINER.COFT.VISUAL, source)
        if setting.way != "ours":
            encoder.__class__ = PlainViT
        clip_model.to(self.device)
        self.peer = Peer(prompts.to(self.device), encoder, float(clip_model.logit_scale.exp()), {})
        self.peer.to(self.device).train()
        attention = partial(step_attention, clip_model.visual, setting.device, PRECISIONS[setting.precision])
        self.attention: Callable[[], Any] = attention if setting.way == "ours" else nullcontext
        self.parameters = [p for p in self.peer.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(self.parameters, cfg.OPTIM)
        self.images = torch.randn(setting.batch, 3, geometry[1], geometry[1], generator=source).to(self.device)
        self.labels = torch.randint(setting.classes, (setting.batch,), generator=source).to(self.device)
        self.weight = torch.ones(len(self.labels), device=self.labels.device)

    def losses(self) -> tuple[Tensor, Tensor]:
        """Cross-entropy and dual loss, scalars with gradients to prompts and visual module."""
        dtype = PRECISIONS[self.setting.precision]
        autocast = torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
        with autocast, self.attention():
            logits, log_odds = self.peer.learner()(self.images)
        loss = weighted_cross_entropy(logits.float(), self.labels, self.weight)
        return loss, expected_dual_loss(log_odds.float(), self.labels)

    def backward(self) -> tuple[Tensor, Tensor]:
        """Compute losses and gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, dual = self.losses()
        (loss + dual).backward()
        return loss.detach(), dual.detach()

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Make a step. Returns the two losses."""
        losses = self.backward()
        self.optimizer.step()
        return losses

    def gradients(self) -> list[Tensor]:
        """Gradients of the last step, on the CPU: of both contexts, and of the visual module."""
        return [p.grad.detach().float().cpu() for p in self.parameters if p.grad is not None]


def difference(ours: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Largest difference of two lists of tensors, each relative to the largest value of the reference's tensor."""
    if len(ours) != len(reference):
        return float("nan")
    pairs = zip(ours, reference, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in pairs)
