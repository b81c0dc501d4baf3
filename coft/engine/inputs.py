"""Images of a run, read and augmented according to a config, which has its sections and keys as attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from coft.core.errors import UserError
from coft.core.world import SINGLE_PROCESS, World
from coft.images.batches import UnlabeledImages
from coft.images.reading import Decoding, read_bytes
from coft.images.unlabeled import UnlabeledPool
from coft.images.views import Inputs


def unlabeled_images(
    cfg: Any,
    paths: Sequence[str],
    hashes: Mapping[str, str] | None,
    read: Callable[[str], bytes] = read_bytes,
    world: World = SINGLE_PROCESS,
) -> UnlabeledImages:
    """Build the pool of unlabeled images in the order of their content hashes, read and cached according to INPUT.

    Args:
        cfg: Config with the sections INPUT and DATALOADER, and USE_CUDA.
        paths: Paths of the image files.
        hashes: SHA-256 by path, of files that were hashed before.
        read: Returns the bytes of a path.
        world: Processes of the run.

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
    """Return CLIP's input format and the augmentation, from the section INPUT."""
    settings = cfg.INPUT
    mean, std = tuple(settings.PIXEL_MEAN), tuple(settings.PIXEL_STD)
    return Inputs(settings.SIZE[0], mean, std, settings.INTERPOLATION, settings.AUGMENT)


def decoding_of(cfg: Any) -> Decoding:
    """Return the size to which images are decoded. Twice CLIP's input size is enough for any crop.

    Args:
        cfg: Config with INPUT.SIZE, INPUT.REDUCED_JPEG and INPUT.SHRINK_TO.

    Raises:
        UserError: If INPUT.SHRINK_TO is below CLIP's input size.
    """
    size, shorter = max(cfg.INPUT.SIZE, default=0), cfg.INPUT.SHRINK_TO
    if shorter and shorter < size:
        raise UserError(f"INPUT.SHRINK_TO is {shorter}; expected at least INPUT.SIZE, which is {size}, or 0")
    return Decoding(2 * max(size, shorter) if cfg.INPUT.REDUCED_JPEG else 0, shorter)
