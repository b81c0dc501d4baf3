"""LoRA: low-rank updates of frozen weights (Hu et al. 2022), for attention layers and convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from coft.backbones.architecture import is_convolutional
from coft.backbones.stages import stays_frozen

QUERY_AND_VALUE = (3, (0, 2))  # a packed projection has three blocks of rows; query and value are the first and third


class LowRank(nn.Module):
    """Parametrization W -> W + B A. It starts at W, since A is random and B is zero.

    Args:
        weight: Frozen weight W. Its first dimension is the output; the others are flattened.
        rank: Number of rows of A.
        generator: Random generator for the initial values of A, N(0, 1 / columns of W).
        blocks: Number of equal blocks that the rows of W are split into.
        tuned: Indices of the blocks to update, each with its own A and B. The other blocks are unchanged.
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
        """Add the update to a weight, in its shape."""
        update = (self.up @ self.down).to(weight.dtype)
        zeros = update.new_zeros(self.blocks, *update.shape[1:])
        return weight + zeros.index_copy(0, self.tuned, update).view_as(weight)


def add_low_rank(visual: Any, rank: int, generator: torch.Generator) -> Any:
    """Add low-rank updates to an image encoder in place: to queries and values, and to the convolutions of a CNN.

    Args:
        visual: An image encoder. Its own weights do not change. Weights of frozen stages get no update.
        rank: Rank of each update.
        generator: Random generator.

    Returns:
        The same encoder.
    """
    convolutional = is_convolutional(visual)
    frozen = {id(visual.get_parameter(name)) for name in stays_frozen(visual)}
    for module in list(visual.modules()):
        for owner, name, blocks, tuned in tuned_weights(module, convolutional):
            if id(getattr(owner, name)) in frozen:
                continue
            update = LowRank(getattr(owner, name), rank, generator, blocks, tuned)
            parametrize.register_parametrization(owner, name, update)
    return visual


def tuned_weights(module: Any, convolutional: bool) -> Iterator[tuple[nn.Module, str, int, tuple[int, ...]]]:
    """Yield the weights of a module that get an update.

    Args:
        module: A module of an image encoder.
        convolutional: Whether convolutions get an update.

    Yields:
        Owning module, attribute name of the weight, number of its blocks, and indices of the blocks to update.
    """
    packed = getattr(module, "in_proj_weight", None)  # attention of torch and open_clip
    if isinstance(packed, Tensor) and hasattr(module, "num_heads"):
        yield module, "in_proj_weight", *QUERY_AND_VALUE
    elif isinstance(getattr(module, "qkv", None), nn.Linear):  # timm's attention
        yield module.qkv, "weight", *QUERY_AND_VALUE
    elif hasattr(module, "qkv") and module.qkv is None:  # timm's Eva, whose projections are not packed
        yield module.q_proj, "weight", 1, (0,)
        yield module.v_proj, "weight", 1, (0,)
    elif convolutional and isinstance(module, nn.Conv2d):
        yield module, "weight", 1, (0,)
