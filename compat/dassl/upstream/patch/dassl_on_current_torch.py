"""Mends what current PyTorch broke in upstream Dassl (0.6.3), without touching a file of Dassl's.

Imported when the interpreter starts (by a `.pth` file, see `link.py`), it waits until Dassl's
schedules are imported, and before that replaces the class that those with warm-up inherit from,
`torch.optim.lr_scheduler._LRScheduler`:

- They hand it a third argument, `verbose`, which PyTorch no longer takes.
- They keep the schedule that follows the warm-up as an object. A checkpoint then holds a pickled object, which
  `torch.load` refuses by default since PyTorch 2.6, and which drives an optimizer of the past if it is loaded. The
  replacement saves that schedule's numbers, and restores them into the live one.

Whatever else is wrong with upstream stays as it is.
"""

from __future__ import annotations

import sys
from typing import Any


def mend() -> None:
    """Replace the base class of schedules."""
    import torch.optim.lr_scheduler as schedulers

    class Scheduler(schedulers.LRScheduler):
        def __init__(self, optimizer: Any, last_epoch: int = -1, verbose: bool = False) -> None:
            super().__init__(optimizer, last_epoch)

        def state_dict(self) -> dict[str, Any]:
            state = super().state_dict()
            return {name: value.state_dict() if is_schedule(value) else value for name, value in state.items()}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            inner = {name for name in state_dict if is_schedule(getattr(self, name, None))}
            for name in inner:
                getattr(self, name).load_state_dict(state_dict[name])
            super().load_state_dict({name: value for name, value in state_dict.items() if name not in inner})

    def is_schedule(value: Any) -> bool:
        return isinstance(value, schedulers.LRScheduler)

    schedulers._LRScheduler = Scheduler  # type: ignore[misc, assignment]


class Watch:
    """An import hook that finds nothing itself, but mends PyTorch just before Dassl's schedules are looked for."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Called by Python for each module that is imported."""
        if name == "dassl.optim.lr_scheduler":
            sys.meta_path.remove(self)
            mend()


sys.meta_path.insert(0, Watch())
