"""Device, precision, micro-batches and processes of a run."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from coft.core.errors import is_out_of_memory
from coft.core.world import SINGLE_PROCESS, World

log = logging.getLogger(__name__)
T = TypeVar("T")


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


def with_smaller_batches(work: Callable[[], T], images: int, runtime: Runtime) -> T:
    """Process a batch, halving the micro-batch until memory is enough.

    The size that fits is kept in `runtime.micro_batch`, and a warning is logged.

    Args:
        work: Processes the batch by `runtime.micro_batch` images. It must be repeatable from its beginning.
        images: Number of images in the batch.
        runtime: Runtime of the run.

    Raises:
        Exception: Any other error of `work`, or its memory error if a single image does not fit.
    """
    first = size = runtime.micro_batch or images
    while True:
        try:
            result = work()
            break
        except Exception as error:
            if size < 2 or not is_out_of_memory(error):
                raise
        # Outside the except block, since the traceback keeps tensors alive until it is left.
        size = runtime.micro_batch = -(-size // 2)
        gc.collect()
        if runtime.device.type == "cuda":
            torch.cuda.empty_cache()
    if size < first:
        log.warning(
            "Out of memory with micro-batches of %d images; continuing with %d. "
            "To start with this size, set TRAIN.MICRO_BATCH %d",
            first,
            size,
            size,
        )
    return result
