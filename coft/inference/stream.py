"""Predicting any number of images in constant memory: threads read ahead of the encoders."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from coft.core.errors import UserError

from .model import AdaptedModel
from .sources import Source

BATCH = {"cpu": 32, "cuda": 256}
AHEAD = 3  # batches of images that are read before they are needed
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a model says of an image, or why it says nothing.

    Attributes:
        source: The image.
        probabilities: Shape (C,); empty where there is a problem.
        p_clean: Likewise; None where the model has none.
        problem: Why the image cannot be read; "" where it can.
    """

    source: Source
    probabilities: Tensor
    p_clean: Tensor | None = None
    problem: str = ""


def predict_all(model: AdaptedModel, sources: Iterable[Source], batch_size: int = 0) -> Iterator[Outcome]:
    """Predict images, in their order.

    Args:
        model: The model.
        sources: Any number of images.
        batch_size: Images at a time; 0: what suits the model's device.
    """
    size = batch_size or BATCH[model.device.type]
    read = read_ahead(model, sources, AHEAD * size)
    while batch := list(islice(read, size)):
        yield from _predicted(model, batch)


def _predicted(model: AdaptedModel, batch: list[tuple[Source, Tensor | str]]) -> Iterator[Outcome]:
    views = [view for _, view in batch if isinstance(view, Tensor)]
    found = model.predict(model.batch(views)) if views else None
    probabilities = iter(found.probabilities.cpu() if found else ())
    clean = iter(found.p_clean.cpu() if found and found.p_clean is not None else ())
    for source, view in batch:
        if isinstance(view, Tensor):
            yield Outcome(source, next(probabilities), next(clean, None))
        else:
            yield Outcome(source, torch.zeros(0), problem=view)


def read_ahead(model: AdaptedModel, sources: Iterable[Source], count: int) -> Iterator[tuple[Source, Tensor | str]]:
    """Read images in threads, in their order.

    Args:
        model: Says how an image is viewed.
        sources: The images.
        count: How many are read before they are asked for.

    Yields:
        The image with its view, shape (3, size, size), uint8, or with why it cannot be read.
    """

    def read(source: Source) -> tuple[Source, Tensor | str]:
        return source, view_or_problem(model, source)

    waiting: deque[Future[tuple[Source, Tensor | str]]] = deque()
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as threads:
        try:
            for source in sources:
                waiting.append(threads.submit(read, source))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def view_or_problem(model: AdaptedModel, source: Source) -> Tensor | str:
    """The view of an image, shape (3, size, size), uint8, or why it cannot be read."""
    try:
        if not stat.S_ISREG(source.path.stat().st_mode):  # reading a pipe would never end
            return "no plain file"
        return model.view(source.path)
    except OSError as error:
        return str(error.strerror or error)
    except UserError as error:
        text = error.line
        return text[text.find("cannot be read (") + len("cannot be read (") :].rsplit(");", 1)[0]
    except (MemoryError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
