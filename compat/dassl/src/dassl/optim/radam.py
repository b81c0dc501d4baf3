"""RAdam, at the import path and with the defaults that plugins expect."""

from __future__ import annotations

from typing import Any

from torch.optim import AdamW
from torch.optim import RAdam as TorchRAdam

__all__ = ["AdamW", "RAdam"]


class RAdam(TorchRAdam):
    """PyTorch's RAdam with the weight decay decoupled from the gradient, as the authors of RAdam published it.

    Args:
        params: Parameters or parameter groups, as for any optimizer of PyTorch.
        lr: Learning rate.
        betas: Decay of the running averages of gradient and squared gradient.
        eps: Term added to the denominator.
        weight_decay: Decoupled weight decay, multiplied by the learning rate in each step.
        **options: Further options of PyTorch's RAdam.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        options.setdefault("decoupled_weight_decay", True)
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, **options)
