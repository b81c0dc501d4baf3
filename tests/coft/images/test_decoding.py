"""Reduced decoding of large images, and refusal of files that are too large."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from coft.core.errors import UserError
from coft.engine.inputs import decoding_of
from coft.images.reading import FULL_SIZE, Decoding, decode_image
from coft.images.unlabeled import UnlabeledPool
from trainers.data import LabeledImages

from .encoding import encode


def waves(width: int, height: int) -> Image.Image:
    """A smooth image."""
    x, y = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 9, height))
    colours = np.stack([np.sin(x), np.sin(x + y), np.cos(y)], axis=-1)
    return Image.fromarray((110 * colours + 128).astype(np.uint8))


@given(width=st.integers(9, 900), height=st.integers(9, 900), enough=st.sampled_from([16, 64, 128]))
@settings(max_examples=40, deadline=None)
def test_a_jpeg_is_decoded_at_the_smallest_sufficient_size(width: int, height: int, enough: int) -> None:
    image = decode_image(encode(Image.new("RGB", (width, height)), "JPEG"), "x", Decoding(enough))
    divisor = next((d for d in (8, 4, 2) if min(width, height) // enough >= d), 1)
    assert image.size == (-(-width // divisor), -(-height // divisor))
    assert min(image.size) >= min(enough, width, height)


def test_a_reduced_jpeg_has_nearly_the_same_pixels() -> None:
    data = encode(waves(800, 640), "JPEG", quality=95)
    full, reduced = (decode_image(data, "x", d) for d in (FULL_SIZE, Decoding(128)))
    assert full.size == (800, 640) and reduced.size == (200, 160)
    pixels = [np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC)).astype(int) for image in (full, reduced)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 4


def test_a_reduced_jpeg_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(waves(640, 320), "JPEG", exif=exif)
    assert decode_image(data, "x", Decoding(64)).size == (80, 160)


@pytest.mark.parametrize(("size", "shrunk"), [((80, 60), (53, 40)), ((60, 80), (40, 53)), ((40, 90), (40, 90))])
def test_the_shorter_side_is_shrunk_and_never_enlarged(size: tuple[int, int], shrunk: tuple[int, int]) -> None:
    assert decode_image(encode(waves(*size)), "x", Decoding(shorter=40)).size == shrunk


def test_the_decoded_size_is_at_least_twice_the_input_size(configure: Callable[..., Any]) -> None:
    assert decoding_of(configure("CoFT")) == Decoding(enough=64)
    assert decoding_of(configure("CoFT", INPUT__SHRINK_TO=40)) == Decoding(enough=80, shorter=40)
    assert decoding_of(configure("CoFT", INPUT__REDUCED_JPEG=False)) == FULL_SIZE
    with pytest.raises(UserError, match=r"INPUT\.SHRINK_TO is 31; expected at least INPUT\.SIZE, which is 32"):
        decoding_of(configure("CoFT", INPUT__SHRINK_TO=31))


def test_shrunk_images_are_the_same_from_memory_and_from_files(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{i}.jpg") for i in range(3)]
    for i, path in enumerate(paths):
        waves(90 + i, 70).save(path)
    hashes = dict.fromkeys(paths[:2], "0") | {paths[2]: "1"}
    decoding = Decoding(shorter=40)
    pools = [UnlabeledPool(paths, room, hashes, decoding) for room in (1 << 20, 0)]
    in_memory, on_disk = ([pool.image(rank) for rank in range(3)] for pool in pools)
    assert sorted(image.size for image in in_memory) == [(51, 40), (52, 40), (53, 40)]
    assert [a.tobytes() for a in in_memory] == [b.tobytes() for b in on_disk]
    Path(paths[0]).unlink()
    assert pools[0].image(pools[0].paths.index(paths[0])).size[1] == 40  # kept in memory


def test_test_images_are_decoded_in_the_same_way(configure: Callable[..., Any], tmp_path: Path) -> None:
    from dassl.data.datasets import Datum

    path = str(tmp_path / "large.jpg")
    waves(300, 260).save(path)
    items = [Datum(impath=path, label=0, classname="waves")]
    sizes = [
        LabeledImages(configure("CoFT", **keys), items)[0]["img"].size
        for keys in ({}, {"INPUT__REDUCED_JPEG": False}, {"INPUT__SHRINK_TO": 40})
    ]
    assert sizes == [(75, 65), (300, 260), (46, 40)]


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    data = encode(Image.new("1", (9000, 9000)))
    assert len(data) < 100_000
    with pytest.raises(UserError, match=r"image x cannot be read .9000 x 9000 pixels: at most 64 million are read"):
        decode_image(data, "x")


def test_a_jpeg_of_too_many_pixels_is_read_if_it_can_be_reduced() -> None:
    data = encode(Image.new("L", (9000, 9000)), "JPEG")
    assert decode_image(data, "x", Decoding(64)).size == (1125, 1125)


def test_a_progressive_jpeg_of_too_many_pixels_is_refused_since_its_coefficients_take_memory_at_full_size() -> None:
    data = encode(Image.new("L", (9000, 9000)), "JPEG", progressive=True)
    with pytest.raises(UserError, match="9000 x 9000 pixels: at most 64 million are read"):
        decode_image(data, "x", Decoding(64))
    small = encode(Image.new("L", (1000, 1000)), "JPEG", progressive=True)
    assert decode_image(small, "x", Decoding(64)).size == (125, 125)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_damaged_metadata_is_ignored(kind: str) -> None:
    data = encode(waves(40, 30), kind, exif=b"garbage")
    assert decode_image(data, "x").size == (40, 30)
