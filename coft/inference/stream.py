"""Prediction of any number of images in constant memory, with threads that read images ahead of the encoders."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from coft.images.reading import UnreadableImage

from .model import AdaptedModel
from .sources import Source

BATCH = {"cpu": 32, "cuda": 256}  # default batch size, by device
AHEAD = 3  # number of batches that are read ahead


@dataclass(frozen=True)
class Outcome:
    """Prediction of an image, or the reason why there is none.

    Attributes:
        source: The image.
        probabilities: Class probabilities. Shape (C,); empty if there is a problem.
        p_clean: Probability, according to the negative prompts, that each class is the right label. Shape (C,); None if
            the model has no negative prompts or there is a problem.
        problem: Reason why the image cannot be read; else "".
    """

    source: Source
    probabilities: Tensor
    p_clean: Tensor | None = None
    problem: str = ""


def predict_all(model: AdaptedModel, sources: Iterable[Source], batch_size: int = 0) -> Iterator[Outcome]:
    """Predict images, and yield the outcomes in the same order.

    Args:
        model: The model.
        sources: Any number of images.
        batch_size: Number of images per batch; 0 for the default of the model's device.
    """
    size = batch_size or BATCH[model.device.type]
    read = read_ahead(model, sources, AHEAD * size)
    while batch := list(islice(read, size)):
        yield from _predict_batch(model, batch)


def _predict_batch(model: AdaptedModel, batch: list[tuple[Source, Tensor | str]]) -> Iterator[Outcome]:
    views = [view for _, view in batch if isinstance(view, Tensor)]
    prediction = model.predict(model.batch(views)) if views else None
    probabilities = iter(prediction.probabilities.cpu() if prediction else ())
    p_clean = iter(prediction.p_clean.cpu() if prediction and prediction.p_clean is not None else ())
    for source, view in batch:
        if isinstance(view, Tensor):
            yield Outcome(source, next(probabilities), next(p_clean, None))
        else:
            yield Outcome(source, torch.zeros(0), problem=view)


def read_ahead(model: AdaptedModel, sources: Iterable[Source], count: int) -> Iterator[tuple[Source, Tensor | str]]:
    """Read images in threads, in order.

    Args:
        model: The model, for its preprocessing.
        sources: The images.
        count: Number of images that are read ahead.

    Yields:
        The source with its preprocessed image, shape (3, size, size), uint8, or with the reason why it cannot be read.
    """

    def read(source: Source) -> tuple[Source, Tensor | str]:
        try:
            return source, model.view(source.path)
        except UnreadableImage as error:
            return source, error.problem
        except (MemoryError, ValueError) as error:
            return source, f"{type(error).__name__}: {error}"

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
