"""Smaller micro-batches where memory runs out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from coft.core.memory import lacks_memory

from .runtime import Runtime

log = logging.getLogger(__name__)
T = TypeVar("T")


def fitting(work: Callable[[], T], images: int, runtime: Runtime) -> T:
    """Do work on a batch, with half as many images at a time until memory is enough.

    What fits stays `runtime.micro_batch`, and is said once.

    Args:
        work: Reads `runtime.micro_batch`, and can be done again from its beginning.
        images: Of the batch.
        runtime: Of the run.

    Raises:
        Exception: What the work raises, if that is anything else, or one image is too many.
    """
    first = size = runtime.micro_batch or images
    while True:
        try:
            result = work()
            break
        except Exception as error:
            if size < 2 or not lacks_memory(error):
                raise
        # Here, and not above: what the traceback holds on to is free only now.
        size = runtime.micro_batch = -(-size // 2)
        gc.collect()
        if runtime.device.type == "cuda":
            torch.cuda.empty_cache()
    if size < first:
        log.warning(
            "Memory is not enough for %d images at a time: %d from here on. Results stay those of the whole batch, but "
            "for rounding. To say so at once: TRAIN.MICRO_BATCH %d",
            first,
            size,
            size,
        )
    return result
