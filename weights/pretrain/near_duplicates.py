"""Near-duplicates: icon sets copy each other, so a held-out drawing may have a twin among the training drawings."""

import numpy as np
from scipy.fft import dctn

from weights.pretrain.render import Shelf

GRID = 32
BITS = 8  # the hash is made of the 8 x 8 lowest frequencies
NEAR = 6  # largest number of bits, of 64, in which near-duplicates differ


def appearance(shelf: Shelf) -> np.ndarray:
    """Return the drawings of a shelf in grey, dark on white, uint8 ``[N, 64, 64]``."""
    opacity = shelf.opacity[:, 0].astype(np.float32) / 255
    if shelf.colour is None:
        return (255 * (1 - opacity)).astype(np.uint8)
    luma = np.tensordot(shelf.colour, np.array([0.299, 0.587, 0.114], np.float32), axes=(1, 0))
    return (luma * opacity + 255 * (1 - opacity)).astype(np.uint8)


def perceptual_hashes(grey: np.ndarray) -> np.ndarray:
    """Compute the pHash of drawings on white. Each drawing is cropped first, so margins do not matter.

    Args:
        grey: Grey drawings, uint8 ``[N, 64, 64]``.

    Returns:
        Hashes, uint64 ``[N]``.
    """
    cropped = np.stack([_crop(picture) for picture in grey])
    frequencies = dctn(cropped, axes=(1, 2), norm="ortho")[:, :BITS, :BITS].reshape(len(grey), -1)
    bits = frequencies > np.median(frequencies[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def _crop(picture: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero((picture < 224).any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return np.zeros((GRID, GRID), np.float32)
    drawn = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    side = max(drawn.shape)
    square = np.full((side, side), 255, np.float32)
    top, left = (side - drawn.shape[0]) // 2, (side - drawn.shape[1]) // 2
    square[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    return _resize(square)


def _resize(square: np.ndarray) -> np.ndarray:
    edges = np.linspace(0, len(square), GRID + 1)
    total = np.pad(square.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    low = edges.astype(int).clip(0, len(square) - 1)
    share = edges - low
    total = total[low] * (1 - share)[:, None] + total[(low + 1).clip(max=len(square))] * share[:, None]
    total = total[:, low] * (1 - share) + total[:, (low + 1).clip(max=len(square))] * share
    return np.diff(np.diff(total, axis=0), axis=1) * (GRID / len(square)) ** 2


def has_twin(hashes: np.ndarray, others: np.ndarray, near: int = NEAR) -> np.ndarray:
    """Return which ``hashes`` ``[N]`` differ from one of ``others`` ``[M]`` in at most ``near`` bits; bool ``[N]``."""
    near_duplicates = np.zeros(len(hashes), bool)
    for other in np.unique(others):
        near_duplicates |= np.bitwise_count(hashes ^ other) <= near
    return near_duplicates
