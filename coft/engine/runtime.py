"""Device, precision, micro-batches and processes of a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from coft.core.world import SINGLE_PROCESS, World


@dataclass
class Runtime:
    """Device, precision, micro-batches and processes of a run.

    Attributes:
        seed: Random seed of the run.
        device: Device of the models.
        dtype: Dtype of the forward pass; None is fp32.
        keeps_stages: Whether outputs of CLIP's frozen stages are cached: on a CPU, a look-up is faster than computing.
        scaler: Gradient scaler of fp16 training on a GPU.
        micro_batch: Number of images per forward and backward pass of a step; 0: the whole batch.
        compiler: Backend of torch.compile for fully fine-tuned encoders; "" for none.
        timed: Context that adds its duration to the named part of the work.
        parallel: Whether steps of several models may run in parallel.
        world: Processes of the run.
    """

    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype | None = None
    keeps_stages: bool = False
    scaler: Any = None
    micro_batch: int = 0
    compiler: str = ""
    timed: Callable[[str], AbstractContextManager[Any]] = nullcontext
    parallel: bool = True
    world: World = SINGLE_PROCESS

    @property
    def steps_in_parallel(self) -> bool:
        """Whether steps of several models run in parallel.

        They do not with several processes, whose collective operations must come in the same order on all ranks; with
        `parallel` off; with compiled encoders, which belong to one thread; nor with a gradient scaler, which the models
        share.
        """
        return self.parallel and self.world.is_single and not self.compiler and self.scaler is None

    def autocast(self) -> torch.autocast:
        """Return the autocast context of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)
