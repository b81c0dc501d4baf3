"""Concurrent steps of several models: on a CPU, each model runs in its own thread with a share of the cores.

The operations of a small encoder are too short to be split among cores; whole steps of two peers are long enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch import nn

Result = TypeVar("Result")
SMALL = 20_000_000  # parameters; larger encoders keep all cores busy, and two at once need twice the memory


class Parallel:
    """Executor that calls a function for several names, concurrently where that is faster.

    Calls for different names must not share mutable state. Each call computes with `threads` threads, whether calls
    run concurrently or not, so that results are bit-identical.

    Args:
        count: Maximum number of names.
        encoder: Image encoder, which takes most of the time.
        device: "cpu" or "cuda".

    Attributes:
        threads: Number of torch threads per call; 0 if calls never run concurrently and torch's setting is left as is.
    """

    def __init__(self, count: int, encoder: nn.Module, device: str) -> None:
        weights = sum(p.numel() for p in encoder.parameters())
        concurrent = count > 1 and device == "cpu" and weights <= SMALL
        self.device, self.threads = device, torch.get_num_threads() // count if concurrent else 0
        self._executor: ThreadPoolExecutor | None = None
        if self.threads:
            self._executor = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(self.threads,))

    def map(self, function: Callable[[str], Result], names: Sequence[str], parallel: bool = True) -> list[Result]:
        """Call a function for each name, and return the results in the order of the names.

        Args:
            function: The function. If calls raise, the exception of the first such name is raised after all have ended.
            names: Arguments of the calls.
            parallel: Whether calls may run concurrently.
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

    def map_without_gradients(self, function: Callable[[str], Result], names: Sequence[str]) -> dict[str, Result]:
        """Call a function for each name, without gradients, under the caller's autocast settings.

        Returns:
            Results by name.
        """
        device = self.device
        dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)

        @torch.no_grad()
        def call(name: str) -> Result:
            with torch.autocast(device, dtype=dtype, enabled=enabled):  # autocast, like no_grad, is thread-local
                return function(name)

        return dict(zip(names, self.map(call, names), strict=True))
