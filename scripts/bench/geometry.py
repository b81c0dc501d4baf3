"""Cost of an image or a prompt in OpenAI's CLIPs at full size: FLOPs, and bytes saved for the backward pass.

No checkpoint is needed: weights are random. `scripts.comparing.costs` uses the numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from clip.model import CLIP
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from coft.core.errors import Parser
from coft.core.exit_codes import guarded

VISION = {  # width of the features; resolution, layers, width, patch of the image tower; width, heads of the text tower
    "ViT-B/16": (512, 224, 12, 768, 16, 512, 8),
    "ViT-B/32": (512, 224, 12, 768, 32, 512, 8),
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 512, 8),
}
TOKENS = 8  # tokens of a class name up to the end of text: the part in which prompts differ


def random_clip(name: str) -> CLIP:
    """Build a CLIP of full size with random weights."""
    torch.manual_seed(0)
    embed, resolution, layers, width, patch, text_width, heads = VISION[name]
    return CLIP(embed, resolution, layers, width, patch, 77, 49408, text_width, heads, 12).float().eval()


def operations(forward: Callable[[], Tensor]) -> float:
    """Count the floating-point operations of a forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward()
    return float(counter.get_total_flops())


def kept_bytes(forward: Callable[[], Tensor], parameters: Sequence[nn.Parameter]) -> int:
    """Count the bytes that a forward pass in bf16 saves for the backward pass, without the parameters."""
    weights, kept = {p.untyped_storage().data_ptr() for p in parameters}, dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        result = forward()
    assert result.requires_grad  # keeps the result, and so all saved tensors, alive until here
    return sum(kept.values())


def image_costs(clip: CLIP) -> tuple[float, float, float]:
    """Return GFLOP per image, MB saved per image, and millions of parameters of the image encoder."""
    few, more = torch.randn(1, 3, 224, 224), torch.randn(3, 3, 224, 224)
    parameters = list(clip.visual.parameters())
    # The difference cancels the bf16 copies of the weights, which take the same for all batch sizes.
    bytes_ = kept_bytes(lambda: clip.visual(more), parameters) - kept_bytes(lambda: clip.visual(few), parameters)
    count = sum(p.numel() for p in parameters)
    return operations(lambda: clip.visual(few)) / 1e9, bytes_ / 2 / 1e6, count / 1e6


def text_costs(clip: CLIP) -> tuple[float, float]:
    """Return GFLOP and MB saved per prompt, for its own `TOKENS` tokens."""
    tower = clip.transformer

    def through(count: int) -> Tensor:
        prompts = torch.randn(TOKENS, count, tower.width, requires_grad=True)
        for block in tower.resblocks:
            block.attn_mask = None
        return tower(prompts)

    for parameter in tower.parameters():
        parameter.requires_grad_(False)
    parameters = list(tower.parameters())
    bytes_ = kept_bytes(lambda: through(12), parameters) - kept_bytes(lambda: through(4), parameters)
    return operations(lambda: through(1)) / 1e9, bytes_ / 8 / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Returns the exit code."""
    parser = Parser(prog="scripts/bench.sh --geometry", description="Operations and memory at the full size of CLIPs.")
    parser.parse_args(argv)
    rows = []
    for name in VISION:
        clip = random_clip(name)
        rows.append([name, *image_costs(clip), *text_costs(clip)])
    heads = ["backbone", "GFLOP an image", "MB kept an image", "M parameters", "GFLOP a prompt", "MB kept a prompt"]
    print(tabulate(rows, heads, tablefmt="github", floatfmt=".1f"))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
