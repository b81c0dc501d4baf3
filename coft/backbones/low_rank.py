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
    """A parametrization W -> W + B A. It starts at W, since A is random and B is zero.

    Args:
        weight: W. Its first dimension is the output; the others are flattened.
        rank: Rows of A.
        generator: Source of the random start of A, N(0, 1 / columns of W).
        blocks: Number of equal blocks of W's rows.
        tuned: Indices of the blocks that get an update of their own. The others stay.
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
        """Add the update to a weight. The shape stays."""
        update = (self.up @ self.down).to(weight.dtype)
        zeros = update.new_zeros(self.blocks, *update.shape[1:])
        return weight + zeros.index_copy(0, self.tuned, update).view_as(weight)


def add_low_rank(visual: Any, rank: int, generator: torch.Generator) -> Any:
    """Add low-rank updates to an image encoder in place: to queries and values, and to the convolutions of a CNN.

    Args:
        visual: An image encoder. Its own weights do not change.
        rank: Rank of each update.
        generator: Source of the random numbers.

    Returns:
        The encoder.
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
    """List the weights of a module that get an update.

    Args:
        module: A module of an image encoder.
        convolutional: Whether convolutions get an update.

    Yields:
        The module that owns the weight, its name there, the number of its blocks, and the blocks to tune.
    """
    packed = getattr(module, "in_proj_weight", None)  # torch's attention and open_clip's
    if isinstance(packed, Tensor) and hasattr(module, "num_heads"):
        yield module, "in_proj_weight", *QUERY_AND_VALUE
    elif isinstance(getattr(module, "qkv", None), nn.Linear):  # timm's
        yield module.qkv, "weight", *QUERY_AND_VALUE
    elif hasattr(module, "qkv") and module.qkv is None:  # timm's Eva, where they are not packed
        yield module.q_proj, "weight", 1, (0,)
        yield module.v_proj, "weight", 1, (0,)
    elif convolutional and isinstance(module, nn.Conv2d):
        yield module, "weight", 1, (0,)
