"""Plain forward passes of CLIP and CoOp, and a CLIP in float64."""

from __future__ import annotations

from typing import Any

import torch
from clip import clip
from clip.model import CLIP
from clip.simple_tokenizer import SimpleTokenizer

TOKENIZER = SimpleTokenizer()
EXACT = {"atol": 1e-10, "rtol": 0.0}


class Program:
    """A pickle that creates a file when it is executed."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return exec, (f"import pathlib; pathlib.Path({self.file!r}).touch()",)


def double_clip(width: int = 64, layers: int = 3, vision_layers: int = 1) -> Any:
    """A CLIP in float64, including its layer norms, which CLIP computes in fp32."""
    torch.manual_seed(0)
    model = CLIP(32, 32, vision_layers, 64, 16, 77, 49408, width, 4, layers).double().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.forward = torch.nn.LayerNorm.forward.__get__(module)
            torch.nn.init.normal_(module.weight, mean=1, std=0.2)
            torch.nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, torch.nn.MultiheadAttention):
            torch.nn.init.normal_(module.in_proj_bias, std=0.2)
            torch.nn.init.normal_(module.in_proj_weight, std=0.3)  # attention far from uniform
    return model


def coop_prompts(
    model: CLIP, names: list[str], context: torch.Tensor, position: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of 77 tokens in CoOp's layout."""
    rows, tokens = [], []
    num_ctx = context.shape[-2]
    for i, name in enumerate(names):
        name = name.replace("_", " ")
        ids = clip.tokenize(" ".join(["X"] * num_ctx) + " " + name + ".")[0]
        length = len(TOKENIZER.encode(name))
        embedded = model.token_embedding(ids)
        ctx = context[i] if context.dim() == 3 else context
        start, body = embedded[:1], embedded[1 + num_ctx :]
        name_part, rest = body[:length], body[length:]
        half = num_ctx // 2
        parts = {
            "end": [start, ctx, name_part, rest],
            "middle": [start, ctx[:half], name_part, ctx[half:], rest],
            "front": [start, name_part, ctx, rest],
        }[position]
        rows.append(torch.cat(parts))
        tokens.append(ids)
    return torch.stack(rows), torch.stack(tokens)


def plain_encode(model: CLIP, prompts: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The text tower over all 77 positions, as CoOp runs it."""
    x = (prompts + model.positional_embedding).permute(1, 0, 2)
    x = model.ln_final(model.transformer(x).permute(1, 0, 2))
    return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection
