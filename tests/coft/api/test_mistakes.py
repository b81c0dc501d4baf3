"""Bad arguments of `coft.adapt` are refused in one line that names them."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import coft
from coft.images.image_sources import collect_images
from tests.conftest import CLASSNAMES


class BadDataset:
    """A data set of three images that raises, or has a wrong length."""

    def __init__(self, length: Any, error: Exception | None = None) -> None:
        self.length, self.error = length, error

    def __len__(self) -> Any:
        return self.length

    def __getitem__(self, number: int) -> np.ndarray:
        if self.error and number == 2:
            raise self.error
        return [np.zeros((64, 64), np.uint8)][number // 3]


def closed_image() -> Image.Image:
    image = Image.new("RGB", (64, 64))
    image.close()
    return image


class BytesPath(os.PathLike):
    """A path in bytes, which is not supported."""

    def __fspath__(self) -> bytes:
        return b"photos"


class BrokenImage(Image.Image):
    """An image whose decoder fails when pixels are read."""

    def load(self) -> Any:
        raise SyntaxError("broken PNG file")


def broken_image() -> Image.Image:
    image = BrokenImage()
    image._size, image._mode = (64, 64), "RGB"  # type: ignore[attr-defined]
    return image


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"phase1__epoch": 2}, "unknown setting 'phase1__epoch'; did you mean 'phase1__epochs'?"),
    ({"phase1__epochs": 2.5}, "phase1__epochs is 2.5; expected a whole number of at least 1"),
    ({"input__size": (48, 48), "backbone": "embedded"}, "INPUT.SIZE is (48, 48), backbone embedded accepts"),
    ({"method": "cofd"}, "method is 'cofd'; did you mean 'coft'?"),
    ({"train__eval_freq": 1}, "unknown setting 'train__eval_freq'"),
    ({"backbone": "phot"}, "unknown backbone 'phot'"),
    ({"classes": "cat"}, "classes 'cat': one name"),
    ({"classes": ["cat", 3]}, "classes[1] is 3; expected a text"),
    ({"images": "nowhere"}, "images nowhere: no such folder"),
    ({"images": 3}, "images is of type int"),
    ({"images": []}, "images: no image that can be read"),
    ({"images": np.zeros((4, 9))}, "images has shape (4, 9)"),
    ({"images": [np.full((4, 4), 300)]}, "image 0 has dtype int64"),
    ({"images": np.zeros((64, 64, 3), np.uint8)}, "images has shape (64, 64, 3), which may be one image in colour"),
    ({"images": torch.zeros(3, 64, 64)}, "images has shape (3, 64, 64), which may be one image in colour"),
    ({"images": torch.zeros(2, 3, 64, 64, device="meta")}, "images has no content"),
    ({"images": [torch.zeros(3, 64, 64).to(torch.float8_e4m3fn)]}, "image 0 has dtype torch.float8_e4m3fn"),
    ({"images": [torch.zeros(64, 64).to_sparse()]}, "image 0 is sparse"),
    ({"images": None}, "images is of type NoneType"),
    ({"images": [None]}, "image 0 is of type NoneType"),
    ({"images": ["a.png", np.zeros((64, 64), np.uint8)]}, "image 1 is of type ndarray, and others are paths"),
    ({"images": [np.zeros((64, 64), np.uint8), "a.png"]}, "image 1 is of type str"),
    ({"images": [closed_image()]}, "image 0 cannot be read"),
    ({"images": [Image.new("RGB", (0, 0))]}, "image 0 cannot be read (ValueError: 0 x 0 pixels"),
    (
        {"images": BadDataset(3, ZeroDivisionError("mine"))},
        "image 2 cannot be retrieved from BadDataset (ZeroDivisionError: mine)",
    ),
    ({"images": BadDataset(9)}, "image 3 cannot be retrieved from BadDataset (IndexError"),
    ({"images": BadDataset(-1)}, "images has no length (ValueError"),
    ({"images": BadDataset(1.5)}, "images has no length (TypeError"),
    ({"classes": None}, "classes is None; expected texts"),
    ({"classes": 5}, "classes is 5; expected texts"),
    ({"classes": {"a", "b"}}, "classes is {"),
    ({"classes": [{"a": 1}, {"b": 2}]}, "classes[0] is {'a': 1}; expected a text"),
    ({"classes": {"a": 5, "b": 6}}, "classes['a'] is 5; expected a list"),
    ({"classes": {"a": "stripes", "b": ["x"]}}, "classes['a'] is 'stripes'; expected a list"),
    ({"classes": {"a": ["\x1b[31m"], "b": ["x"]}}, "classes['a'][0] is"),
    ({"backbone": None}, "backbone is None; expected text"),
    ({"backbone": "a\0b"}, "backbone is 'a\\x00b'"),
    ({"method": ["coft"]}, "method is ['coft']"),
    ({"images": ""}, "images is ''; expected a path"),
    ({"images": "~nobody-has-this-name/x"}, "images ~nobody-has-this-name/x: no such folder"),
    ({"images": "x" * 300}, "images is 'xxx"),
    ({"images": BytesPath()}, "images is b'photos'"),
    ({"images": [BytesPath()]}, "image 0 is b'photos'"),
    ({"images": [broken_image()]}, "image 0 cannot be read (SyntaxError: broken PNG file)"),
    ({"classes": np.array(1)}, "classes is array(1); expected texts"),
    ({"classes": torch.tensor(1)}, "classes is tensor(1); expected texts"),
    ({"classes": BytesPath()}, "classes is b'photos'; expected a text"),
    ({"classes": "~nobody-has-this-name/x"}, "classes ~nobody-has-this-name/x: no such file"),
    ({"backbone": "x" * 5000}, "backbone is 'xxx"),
    ({"backbone": "~nobody-has-this-name/x"}, "unknown backbone '~nobody"),
    ({"progress": np.array(["a", "b"])}, "progress is array"),
    ({"output": 5}, "output is 5; expected a path"),
    ({"output": ""}, "output is ''"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES, ids=lambda x: next(iter(x)) if isinstance(x, dict) else "")
def test_bad_arguments_are_refused(call: dict[str, Any], message: str) -> None:
    valid = {"images": [np.zeros((64, 64), np.uint8)] * 2, "classes": CLASSNAMES, "backbone": "embedded"}
    with pytest.raises(coft.UserError, match=f"^{re.escape(message)}"):
        coft.adapt(**(valid | call))


def test_images_in_memory_can_be_read_by_a_spawned_process() -> None:
    images = collect_images(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    read = pickle.loads(pickle.dumps(images.read))
    assert read("1") == images.read("1") != images.read("0")


def test_a_path_in_a_list_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert collect_images(["~/a.png"]).names == [str(tmp_path / "a.png")]
