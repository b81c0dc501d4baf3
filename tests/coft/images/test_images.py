from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from coft.core.errors import UserError
from coft.images.image_sources import image_of
from coft.images.reading import decode_image

from .encoding import encode

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


@pytest.mark.parametrize(("factor", "form"), [(1, "PNG"), (257, "PNG"), (257, "TIFF")])
def test_grey_of_8_and_16_bits_becomes_rgb_of_8_bits(factor: int, form: str) -> None:
    values = GREY if factor == 1 else GREY.astype(np.uint16) * factor
    pixels = np.asarray(decode_image(encode(Image.fromarray(values), form), "x"))
    assert (pixels == GREY[..., None]).all() and pixels.shape == (8, 8, 3)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
@pytest.mark.parametrize("white", [1, 255, 65535])
def test_floats_and_large_integers_are_scaled(kind: type, white: int) -> None:
    values = (GREY * (white / 252)).astype(kind)  # the maximum of GREY is 252; map it to white
    values[0, 0] = 0
    pixels = np.asarray(decode_image(encode(Image.fromarray(values), "TIFF"), "x")).astype(int)
    if kind is np.int32 and white == 1:
        assert pixels.max() == 1  # values within a byte are kept
    else:
        assert abs(pixels[..., 0] - GREY * (255 / 252)).max() <= 1.5


@pytest.mark.parametrize(
    ("kind", "white", "highest"), [(np.float32, 1, 1.01), (np.float32, 255, 255.5), (np.int32, 255, 260)]
)
def test_values_slightly_above_white_are_white(kind: type, white: int, highest: float) -> None:
    values = (GREY * (white / 252)).astype(kind)
    values[0, 0] = highest
    pixels = np.asarray(decode_image(encode(Image.fromarray(values), "TIFF"), "x")).astype(int)[..., 0]
    assert pixels[0, 0] == 255 and abs(pixels - GREY * (255 / 252))[1:].max() <= 1.5


def test_infinity_is_white_and_changes_nothing_else() -> None:
    values = np.full((4, 4), 0.5, np.float32)
    values[0] = [np.inf, -np.inf, 0, 1]
    pixels = np.asarray(decode_image(encode(Image.fromarray(values), "TIFF"), "x"))[..., 0]
    assert pixels[0].tolist() == [255, 0, 0, 255] and (pixels[1:] == 128).all()


def test_nan_becomes_black() -> None:
    values = np.full((4, 4), 0.5, np.float32)
    values[0, 0] = np.nan
    pixels = np.asarray(decode_image(encode(Image.fromarray(values), "TIFF"), "x"))
    assert pixels[0, 0, 0] == 0 and pixels[1, 1, 0] == 128


def test_palette_becomes_rgb() -> None:
    image = Image.fromarray(np.dstack([GREY, GREY // 2, GREY // 4])).quantize(32)
    assert np.array_equal(np.asarray(decode_image(encode(image), "x")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_composed_on_white_without_a_warning(mode: str) -> None:
    """A black drawing on a transparent background must not become all black."""
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[2:6, 2:6, 3] = 255
    image = Image.fromarray(rgba).convert(mode) if mode != "P" else Image.fromarray(rgba).quantize(2)
    options = {} if mode != "P" else {"transparency": image.getpixel((0, 0))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = np.asarray(decode_image(encode(image, **options), "x"))
    assert (pixels[0, 0] == 255).all() and (pixels[3, 3] == 0).all()


def test_exif_orientation_is_applied() -> None:
    image = Image.fromarray(np.zeros((4, 8), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encode(image, "JPEG", exif=exif), "x").size == (4, 8)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def test_postscript_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **options: pytest.fail("PostScript was run"))
    with pytest.raises(UserError, match=r"image a\.png cannot be read \(unknown image format\)"):
        decode_image(POSTSCRIPT, "a.png")


def test_an_empty_file_is_said_to_be_empty() -> None:
    with pytest.raises(UserError, match=r"image a\.png cannot be read \(the file is empty\)"):
        decode_image(b"", "a.png")


@pytest.mark.parametrize(("size", "fits"), [((800, 8), True), ((8, 800), True), ((809, 8), False), ((1, 101), False)])
def test_images_with_an_extreme_aspect_ratio_are_refused(size: tuple[int, int], fits: bool) -> None:
    data = encode(Image.new("RGB", size))
    if fits:
        assert decode_image(data, "a.png").size == size
    else:
        with pytest.raises(UserError, match=rf"a\.png cannot be read \({size[0]} x {size[1]} pixels: a side is more"):
            decode_image(data, "a.png")


def test_any_error_of_a_decoder_names_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise IndexError("buffer is not large enough")

    monkeypatch.setattr("coft.images.reading.rgb", fail)
    with pytest.raises(UserError, match=r"a\.png cannot be read \(buffer is not large enough\)"):
        decode_image(encode(Image.fromarray(GREY)), "a.png")


def test_a_tensor_with_a_negative_bit_is_an_image() -> None:
    pixels = torch.rand(64, 64)
    view = torch.complex(torch.zeros(64, 64), -pixels).conj().imag
    assert view.is_neg() and image_of(view, "0").tobytes() == image_of(pixels, "0").tobytes()
