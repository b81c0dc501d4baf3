"""Steps of several models at the same time: on a CPU, each has a thread of its own and its share of the cores.

The operations of a small encoder are too short to be split among cores; whole steps of two peers are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch import nn

Result = TypeVar("Result")
SMALL = 20_000_000  # weights; larger encoders keep the cores busy by themselves, and two at once take twice the memory


class Parallel:
    """Calls a function for several names, at the same time where that is faster; results are in the order of names.

    What is called for one name must not touch what belongs to another. Each call computes with `threads` threads
    whether calls run at the same time or not, so that bits do not depend on it.

    Args:
        count: Number of names at most.
        encoder: What most of the time goes to.
        device: "cpu" or "cuda".

    Attributes:
        threads: Of each call; 0 where all are left to whoever is called.
    """

    def __init__(self, count: int, encoder: nn.Module, device: str) -> None:
        self.threads = torch.get_num_threads() // count
        weights = sum(p.numel() for p in encoder.parameters())
        if count < 2 or device != "cpu" or weights > SMALL:
            self.threads = 0
        self._executor: ThreadPoolExecutor | None = None
        if self.threads:
            self._executor = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(self.threads,))

    def map(self, function: Callable[[str], Result], names: Sequence[str], parallel: bool = True) -> list[Result]:
        """Call a function for each name.

        Args:
            function: May raise; the first name's exception is passed on, after all calls have ended.
            names: What it is called with.
            parallel: False: one after the other in any case.
        """
        if self._executor is None:
            return [function(name) for name in names]
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            if not parallel:
                return [function(name) for name in names]
            calls = [self._executor.submit(function, name) for name in names]
            wait(calls)
            return [call.result() for call in calls]
        finally:
            torch.set_num_threads(before)

    def map_without_gradients(
        self, function: Callable[[str], Result], names: Sequence[str], device: str
    ) -> dict[str, Result]:
        """Call a function for each name, without gradients, in the precision of the autocast this is called in.

        Returns:
            What it returned, by name.
        """
        dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)

        @torch.no_grad()
        def call(name: str) -> Result:
            with torch.autocast(device, dtype=dtype, enabled=enabled):  # it is each thread's own, as is no_grad
                return function(name)

        return dict(zip(names, self.map(call, names), strict=True))
