"""LoRA: low-rank updates of frozen weights (Hu et al. 2022), for attention and for convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

QUERY_AND_VALUE = (3, (0, 2))  # of the three blocks of rows of an attention's packed projection


class LowRank(nn.Module):
    """A parametrization W -> W + B A, which starts at W: A is random, B is zero.

    Args:
        weight: W. Its first dimension is the output's; the others are taken as one.
        rank: Rows of A.
        generator: Source of A's start, N(0, 1 / columns of W).
        blocks: W's rows are so many equal blocks.
        tuned: Which of the blocks get an update of their own; the others stay.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: int,
        generator: torch.Generator,
        blocks: int = 1,
        tuned: tuple[int, ...] = (0,),
    ) -> None:
        super().__init__()
        rows, columns = weight.shape[0] // blocks, weight[0].numel()
        start = torch.randn(len(tuned), rank, columns, generator=generator) * columns**-0.5
        self.down = nn.Parameter(start.to(weight.device))
        self.up = nn.Parameter(torch.zeros(len(tuned), rows, rank, device=weight.device))
        self.blocks = blocks
        self.tuned: Tensor
        self.register_buffer("tuned", torch.tensor(tuned, device=weight.device), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Add the update to a weight. Shape as the weight's."""
        update = (self.up @ self.down).to(weight.dtype)
        blank = update.new_zeros(self.blocks, *update.shape[1:])
        return weight + blank.index_copy(0, self.tuned, update).view_as(weight)


def add_low_rank(visual: Any, rank: int, generator: torch.Generator) -> Any:
    """Give an image encoder low-rank updates, in place: of queries and values, or of a ResNet's convolutions.

    Args:
        visual: CLIP's image encoder; its own weights stay as they are.
        rank: Rank of each update.
        generator: Source of the random numbers.

    Returns:
        The encoder.
    """
    for module in list(visual.modules()):
        if isinstance(module, nn.MultiheadAttention):
            blocks, tuned = QUERY_AND_VALUE
            update = LowRank(module.in_proj_weight, rank, generator, blocks, tuned)
            parametrize.register_parametrization(module, "in_proj_weight", update)
        elif isinstance(module, nn.Conv2d) and not hasattr(visual, "transformer"):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank, generator))
    return visual
