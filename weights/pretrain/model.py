"""The small CLIPs: OpenAI's architecture over the vocabulary in use, and heads for training."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from clip.model import CLIP, VisionTransformer
from torch import Tensor, nn

from weights.photographs.captions import POSITIONS, Batch
from weights.pretrain.distil import Hints, vit_maps

EMBED_DIM = 256
TEXT = {"transformer_width": 128, "transformer_heads": 2, "transformer_layers": 3}
# clip.model.build_model sets heads to width // 64, so training must do the same.
TOWERS: dict[str, dict[str, Any]] = {
    "embedded": {"vision_layers": (1, 1, 1, 1), "vision_width": 32, "vision_patch_size": None},
    "embedded-vit": {"vision_layers": 6, "vision_width": 128, "vision_patch_size": 8},
}


def build_clip(name: str, vocabulary: int) -> CLIP:
    """Build a CLIP with random weights and ``vocabulary`` tokens, for 64 x 64 images."""
    return CLIP(
        embed_dim=EMBED_DIM,
        image_resolution=64,
        context_length=POSITIONS,
        vocab_size=vocabulary,
        **TOWERS[name],
        **TEXT,
    )


@dataclass
class Features:
    """Unit-length image and text features ``[B, D]`` and logits over words ``[B, W]``."""

    image: Tensor
    text: Tensor
    words: Tensor


class Student(nn.Module):
    """A CLIP for training, with prompts at any position and a bag-of-words head on the image features."""

    def __init__(self, name: str, vocabulary: int, words: int) -> None:
        super().__init__()
        self.clip = build_clip(name, vocabulary)
        self.word_head = nn.Linear(EMBED_DIM, words)
        self.hints = Hints(TOWERS["embedded-vit"]["vision_width"], (256, 512))
        self.vit_maps = vit_maps

    def compile_images(self) -> None:
        """Compile the image encoder. This needs a C++ compiler, and takes a minute or two."""
        self.clip.visual.compile()
        self.vit_maps = torch.compile(vit_maps)

    def encode_images(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return features ``[B, D]`` of images, and intermediate maps if the encoder is a vision transformer."""
        if isinstance(self.clip.visual, VisionTransformer):
            return self.vit_maps(self.clip.visual, images)
        return self.clip.visual(images), []

    def forward(self, images: Tensor, prompts: Batch, generator: torch.Generator) -> Features:
        """Compute features of images ``[B, 3, 64, 64]`` and of prompts."""
        image, _ = self.encode_images(images)
        text = self.encode_prompts(prompts, generator)
        return Features(F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1), self.word_head(image))

    def encode_prompts(self, prompts: Batch, generator: torch.Generator) -> Tensor:
        """Run CLIP's text tower with given positions, and with some tokens replaced by noise; ``[B, D]``.

        Contexts of prompt learners start at N(0, 0.02^2) and may grow to the norm of words. The noise covers this
        range.
        """
        embedded = self.clip.token_embedding(prompts.tokens)
        size = 0.02 * 20 ** torch.rand(len(embedded), 1, 1, generator=generator)
        noise = torch.randn(embedded.shape, generator=generator) * size
        embedded = torch.where(prompts.noise[..., None], noise, embedded)
        embedded = embedded + self.clip.positional_embedding[prompts.positions]
        order = prompts.ends.argsort()
        halves = [self._read(embedded[rows], prompts.ends[rows]) for rows in order.chunk(2)]
        return torch.cat(halves)[order.argsort()]

    def _read(self, embedded: Tensor, ends: Tensor) -> Tensor:
        """Run the transformer up to the last end mark of the rows; later tokens have no effect."""
        hidden = embedded[:, : int(ends.max()) + 1].permute(1, 0, 2)
        hidden = self.clip.transformer(hidden).permute(1, 0, 2)
        last = hidden[torch.arange(len(hidden)), ends]
        return self.clip.ln_final(last) @ self.clip.text_projection
