"""Images, the data set wrapper, and loaders."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import ToTensor

from dassl.data import DataManager, DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import read_image
from toys import UPSTREAM, datum, items_in, make_cfg, ours_only


def save(path: Path, image: Image.Image, **options: Any) -> str:
    image.save(path, **options)
    return str(path)


def noise(mode: str) -> Image.Image:
    bands = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, *bands), dtype=np.uint8), mode=None)


def files(folder: Path) -> dict[str, str]:
    palette = noise("RGB").quantize(16)
    return {
        "RGB": save(folder / "rgb.png", noise("RGB")),
        "grey": save(folder / "grey.png", noise("L")),
        "RGBA": save(folder / "rgba.png", noise("RGBA")),
        "palette": save(folder / "palette.png", palette),
        "transparent palette": save(folder / "transparent.png", palette, transparency=bytes(range(0, 256, 16))),
        "one transparent colour": save(folder / "colour.png", palette, transparency=3),
        "gif": save(folder / "image.gif", palette),
        "jpeg": save(folder / "image.jpg", noise("RGB")),
    }


def test_images_are_converted_to_rgb(tmp_path: Path, images: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if UPSTREAM else "error")
        for kind, path in files(tmp_path).items():
            wrapper = DatasetWrapper(make_cfg(images, tmp_path), [Datum(path)])
            image = wrapper[0]["img"]
            assert (image.mode, image.size) == ("RGB", (7, 9)), kind
            with Image.open(path) as opened:
                expected = np.asarray(opened.convert("RGBA").convert("RGB"))
            assert np.array_equal(np.asarray(image), expected), kind
            assert np.array_equal(np.asarray(read_image(path)), expected), kind


@ours_only
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "format is not known"),
        (b"no image", "format is not known"),
        (None, "No such file"),
        (40, "truncated"),
    ],
)
def test_unreadable_image_is_named(content: bytes | int | None, reason: str, tmp_path: Path, images: Path) -> None:
    from dassl.utils import ImageReadError

    path = tmp_path / "broken.png"
    if isinstance(content, int):
        noise("RGB").resize((64, 64)).save(path)
        content = path.read_bytes()[:-content]
    path.write_bytes(content or b"")
    item = Datum(str(path))
    if content is None:
        path.unlink()
    loader = build_data_loader(make_cfg(images, tmp_path), data_source=[item], batch_size=1, is_train=False)
    with pytest.raises(ImageReadError, match=f"^image {re.escape(str(path))} cannot be read .*{reason}"):
        next(iter(loader))
    assert issubclass(ImageReadError, OSError)


@ours_only
def test_read_error_can_be_pickled(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be read") as caught:
        read_image(tmp_path / "nowhere.png")
    for copy in (type(caught.value)(str(caught.value)), pickle.loads(pickle.dumps(caught.value))):
        assert str(copy) == str(caught.value)


def shape(image: Any) -> tuple[int, ...]:
    return tuple(ToTensor()(image).shape)


def test_wrapper_without_transform(images: Path, tmp_path: Path) -> None:
    items = items_in(images)
    wrapper = DatasetWrapper(make_cfg(images, tmp_path), items)
    assert len(wrapper) == 24
    output = wrapper[4]
    assert isinstance(output.pop("img"), Image.Image)
    assert output == {"label": 1, "domain": 1, "impath": items[4].impath, "index": 4}


def test_wrapper_with_several_transforms(images: Path, tmp_path: Path) -> None:
    tfms = [lambda image: "one", lambda image: "two", lambda image: "three"]
    output = DatasetWrapper(make_cfg(images, tmp_path), items_in(images), transform=tfms)[0]
    assert [output[key] for key in ("img", "img2", "img3")] == ["one", "two", "three"]
    assert "img4" not in output


def test_wrapper_repeats_transforms_only_in_training(images: Path, tmp_path: Path) -> None:
    cfg = make_cfg(images, tmp_path, "DATALOADER.K_TRANSFORMS", 3)
    numbers = iter(range(100))
    options: dict[str, Any] = {"transform": [lambda image: next(numbers)] * 2}
    output = DatasetWrapper(cfg, items_in(images), is_train=True, **options)[0]
    assert (output["img"], output["img2"]) == ([0, 1, 2], [3, 4, 5])
    assert DatasetWrapper(cfg, items_in(images), is_train=False, **options)[0]["img"] == 6
    with pytest.raises(ValueError):
        DatasetWrapper(cfg, items_in(images), is_train=True)[0]


def test_wrapper_with_original_image(images: Path, tmp_path: Path) -> None:
    cfg = make_cfg(images, tmp_path, "DATALOADER.RETURN_IMG0", True)
    plain = DatasetWrapper(cfg, items_in(images), transform=shape)[3]
    assert plain["img"] == (3, 20, 20)
    assert plain["img0"].shape == (3, 16, 16)
    assert plain["img0"].min() >= 0 and plain["img0"].max() <= 1
    cfg.INPUT.TRANSFORMS = ("normalize",)
    normalized = DatasetWrapper(cfg, items_in(images), transform=shape)[3]["img0"]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    torch.testing.assert_close((normalized - normalized[:, :1, :1]) * std, plain["img0"] - plain["img0"][:, :1, :1])


def test_batches(images: Path, tmp_path: Path) -> None:
    cfg = make_cfg(images, tmp_path)
    loader = build_data_loader(cfg, data_source=items_in(images), batch_size=5, tfm=ToTensor(), is_train=False)
    batches = list(loader)
    assert [len(batch["index"]) for batch in batches] == [5, 5, 5, 5, 4]
    assert batches[1]["img"].shape == (5, 3, 20, 20)
    assert torch.equal(batches[1]["label"], torch.tensor([2, 0, 1, 2, 0]))
    assert batches[0]["impath"][1].endswith("01.png")


@given(number=st.integers(1, 24), batch_size=st.integers(1, 30), is_train=st.booleans())
def test_incomplete_batch_is_dropped_in_training(number: int, batch_size: int, is_train: bool) -> None:
    cfg = make_cfg(Path(), Path())
    items = [datum(0)] * number
    loader = build_data_loader(cfg, data_source=items, batch_size=batch_size, tfm=shape, is_train=is_train)
    drops = is_train and number >= batch_size
    assert len(loader) == (number // batch_size if drops else -(-number // batch_size))


def test_data_manager(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = make_cfg(images, tmp_path, "DATASET.SOURCE_DOMAINS", ["a", "b"], "DATALOADER.TEST.BATCH_SIZE", 5)
    dm: Any = DataManager(cfg)
    assert isinstance(dm.dataset, DATASET_REGISTRY.get("Tints"))
    assert (dm.num_classes, dm.num_source_domains) == (3, 2)
    assert dm.lab2cname == {0: "red", 1: "green", 2: "blue"}
    assert [len(x) for x in (dm.train_loader_x, dm.train_loader_u, dm.val_loader, dm.test_loader)] == [3, 1, 2, 5]
    rows = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines() if not line.startswith(("+", "B"))]
    assert ["#", "classes", "3"] in rows
    assert ["Dataset", "Tints"] in rows
    assert [row[2] for row in rows if row[:2] in (["#", "train_x"], ["#", "train_u"], ["#", "val"], ["#", "test"])] == [
        *("24", "9", "6", "24")
    ]
    assert any(row[0] == "Source" for row in rows)
    assert not any(row[0] == "Target" for row in rows)


def test_settings_of_unlabelled_loader(images: Path, tmp_path: Path) -> None:
    options = ("DATALOADER.TRAIN_U.BATCH_SIZE", 3)
    for more, expected in ((), 8), (("DATALOADER.TRAIN_U.SAME_AS_X", False), 3):
        dm: Any = DataManager(make_cfg(images, tmp_path, *options, *more))
        assert dm.train_loader_u.batch_size == expected


def test_optional_loaders(images: Path, tmp_path: Path) -> None:
    @DATASET_REGISTRY.register(force=True)
    class TintsTrainTest(DatasetBase):
        def __init__(self, cfg: Any) -> None:
            super().__init__(train_x=items_in(images), test=items_in(images))

    dm = DataManager(make_cfg(images, tmp_path, "DATASET.NAME", "TintsTrainTest"))
    assert (dm.train_loader_u, dm.val_loader) == (None, None)


def test_custom_transforms_and_wrapper(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def wrapper(cfg: Any, data_source: Sequence[Datum], transform: Any = None, is_train: bool = False) -> Any:
        return [{"is_train": is_train, "tfm": transform} for _ in data_source]

    cfg = make_cfg(images, tmp_path, "VERBOSE", False)
    dm = DataManager(cfg, custom_tfm_train="for training", custom_tfm_test="for tests", dataset_wrapper=wrapper)
    assert capsys.readouterr().out.splitlines() == [
        "* Using custom transform for training",
        "* Using custom transform for testing",
    ]
    assert dm.train_loader_x.dataset[0] == {"is_train": True, "tfm": "for training"}
    assert dm.test_loader.dataset[0] == {"is_train": False, "tfm": "for tests"}
