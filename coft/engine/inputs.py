"""Images of a run, read and augmented as a config says; it has its sections and keys as attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from coft.core.errors import UserError
from coft.core.world import ALONE, World
from coft.images.batches import UnlabeledImages
from coft.images.reading import Decoding, read_bytes
from coft.images.unlabeled import UnlabeledPool
from coft.images.views import Inputs


def unlabeled_images(
    cfg: Any,
    paths: Sequence[str],
    hashes: Mapping[str, str] | None = None,
    read: Callable[[str], bytes] = read_bytes,
    world: World = ALONE,
) -> UnlabeledImages:
    """Take images in the order of their content, read and kept as INPUT says.

    Args:
        cfg: INPUT, DATALOADER and USE_CUDA are read.
        paths: Image files.
        hashes: SHA-256 of files whose content is known already, by path.
        read: Gives the bytes of a path.
        world: The processes of the run.

    Raises:
        UserError: If there are fewer images than processes.
    """
    if len(paths) < world.size:
        raise UserError(f"{len(paths)} unlabeled images are too few for {world.size} processes; start fewer of them")
    pool = UnlabeledPool(paths, cfg.INPUT.CACHE_MB << 20, hashes, decoding_of(cfg), read, world)
    return UnlabeledImages(
        pool,
        inputs_of(cfg),
        batch_size=cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
        test_batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
        world=world,
    )


def inputs_of(cfg: Any) -> Inputs:
    """What CLIP reads, and how images are augmented, by INPUT."""
    settings = cfg.INPUT
    return Inputs(
        settings.SIZE[0],
        tuple(settings.PIXEL_MEAN),
        tuple(settings.PIXEL_STD),
        settings.INTERPOLATION,
        settings.AUGMENT,
    )


def decoding_of(cfg: Any) -> Decoding:
    """How a config wants images read: twice the pixels that CLIP reads are enough for any crop.

    Args:
        cfg: INPUT.SIZE, and INPUT.REDUCED_JPEG and INPUT.SHRINK_TO where it has them.

    Raises:
        UserError: If images were shrunk to less than CLIP reads.
    """
    size, shorter = max(cfg.INPUT.SIZE, default=0), cfg.INPUT.get("SHRINK_TO", 0)
    if shorter and shorter < size:
        raise UserError(f"INPUT.SHRINK_TO is {shorter}; expected at least INPUT.SIZE, which is {size}, or 0")
    return Decoding(2 * max(size, shorter) if cfg.INPUT.get("REDUCED_JPEG", True) else 0, shorter)
