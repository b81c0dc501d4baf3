"""Fallback to smaller micro-batches when memory runs out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from coft.core.memory import is_out_of_memory

from .runtime import Runtime

log = logging.getLogger(__name__)
T = TypeVar("T")


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
