"""Where and how a run computes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from coft.core.world import ALONE, World


@dataclass
class Runtime:
    """Where and how a run computes.

    Attributes:
        seed: Of everything random.
        device: Of the models.
        dtype: Of the forward pass; None is fp32.
        keeps_stages: Whether what CLIP's frozen stages make of images is kept: a CPU takes longer than to look it up.
        scaler: Gradient scaler of fp16 training on a GPU.
        micro_batch: Images that go through an encoder at a time in a step; 0: the whole batch.
        compiler: Backend of torch.compile for encoders that train in full; "" for none.
        timed: Context that counts the seconds of a part of the work.
        parallel: Whether steps of several models may run at the same time.
        world: The processes of the run.
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
    world: World = ALONE

    @property
    def steps_in_parallel(self) -> bool:
        """Whether steps of several models run at the same time.

        Exchanges of several processes must come in one order on all of them; operations that are recorded or compiled
        are of one thread, and a gradient scaler counts the steps of all.
        """
        return self.parallel and self.world.alone and not self.compiler and self.scaler is None

    def autocast(self) -> torch.autocast:
        """Context in which a forward pass runs."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)
