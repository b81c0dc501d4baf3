"""Datum, data sets, the wrapper that reads images, and loaders."""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import re
import sys
import tarfile
import warnings
import zipfile
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
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset
from dassl.utils import read_image

from .toys import UPSTREAM, items_in, make_cfg, ours_only

# ---- Datum and DatasetBase


def datum(label: int, classname: str = "", domain: int = 0) -> Datum:
    return Datum(__file__, label, domain, classname)


def test_datum(images: Path) -> None:
    path = str(images / "00.png")
    item = Datum(impath=path, label=2, domain=1, classname="blue")
    assert (item.impath, item.label, item.domain, item.classname) == (path, 2, 1, "blue")
    assert vars(item) == {"_impath": path, "_label": 2, "_domain": 1, "_classname": "blue"}
    with pytest.raises(AttributeError):
        item.label = 0  # type: ignore[misc]


def test_datum_is_pickled_under_the_name_that_caches_have(images: Path) -> None:
    item = Datum(str(images / "00.png"), 1, 0, "green")
    assert b"dassl.data.datasets.base_dataset" in pickle.dumps(item)
    assert vars(pickle.loads(pickle.dumps(item))) == vars(item)


@pytest.mark.filterwarnings("ignore:No file found")
@pytest.mark.parametrize("path", [Path(__file__), 3, "nowhere.png"])
def test_datum_needs_a_file(path: Any) -> None:
    with pytest.raises(AssertionError):
        Datum(path)


def test_classes_come_from_train_x() -> None:
    train = [datum(2, "c"), datum(0, "a"), datum(2, "c"), datum(4, "e")]
    dataset = DatasetBase(train_x=train, train_u=train[:1], val=[datum(7, "z")], test=[datum(9, "y")])
    assert dataset.num_classes == 5
    assert dataset.lab2cname == {0: "a", 2: "c", 4: "e"}
    assert dataset.classnames == ["a", "c", "e"]
    assert (dataset.train_x, dataset.train_u) == (train, train[:1])
    assert [dataset.val[0].label, dataset.test[0].label] == [7, 9]  # type: ignore[index]


def test_domains_are_checked() -> None:
    class Domains(DatasetBase):
        domains = ("photo", "sketch")

    dataset = Domains(train_x=[datum(0)])
    dataset.check_input_domains(["photo"], ["sketch", "photo"])
    for source, target in ((["photo"], ["clipart"]), (["clipart"], ["photo"])):
        with pytest.raises(ValueError, match="clipart"):
            dataset.check_input_domains(source, target)
    with pytest.raises((ValueError, AssertionError)):
        dataset.check_input_domains([], ["photo"])


labels = st.lists(st.integers(0, 4), min_size=1, max_size=30)


@given(labels=labels, shots=st.integers(1, 6), repeat=st.booleans(), seed=st.integers(0, 99))
def test_few_shots(labels: list[int], shots: int, repeat: bool, seed: int) -> None:
    items = [datum(label, domain=i) for i, label in enumerate(labels)]
    dataset = DatasetBase(train_x=items)
    random.seed(seed)
    drawn = dataset.generate_fewshot_dataset(items, num_shots=shots, repeat=repeat)
    order = list(dict.fromkeys(labels))
    assert list(dict.fromkeys(item.label for item in drawn)) == order
    position = 0
    random.seed(seed)
    for label in order:
        of_class = [item for item in items if item.label == label]
        if len(of_class) >= shots:
            expected = random.sample(of_class, shots)
        else:
            expected = random.choices(of_class, k=shots) if repeat else of_class
        assert drawn[position : position + len(expected)] == expected
        position += len(expected)
    assert position == len(drawn)


def test_few_shots_of_several_sources(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = [datum(i % 2) for i in range(8)], [datum(i % 3) for i in range(9)]
    dataset = DatasetBase(train_x=one)
    assert dataset.generate_fewshot_dataset(one, num_shots=-1) is one
    assert dataset.generate_fewshot_dataset(one, two, num_shots=0) == (one, two)
    assert capsys.readouterr().out == ""
    first, second = dataset.generate_fewshot_dataset(one, two, num_shots=2)
    assert (len(first), len(second)) == (4, 6)
    assert capsys.readouterr().out == "Creating a 2-shot dataset\n"


def test_grouping() -> None:
    items = [datum(i % 3, domain=i % 2) for i in range(12)]
    dataset = DatasetBase(train_x=items)
    by_label, by_domain = dataset.split_dataset_by_label(items), dataset.split_dataset_by_domain(items)
    assert by_label[1] == items[1::3]
    assert by_domain[0] == items[::2]
    assert by_label["no such label"] == []  # type: ignore[index]


def test_download_is_from_google_drive_alone(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError):
        DatasetBase(train_x=[datum(0)]).download_data("https://example.org/a.zip", str(tmp_path / "a.zip"), False)


class Drive:
    """Stands in for gdown: writes an archive where it is asked to."""

    def __init__(self, name: str) -> None:
        self.name = name

    def download(self, url: str, dst: str, quiet: bool = True) -> None:
        if dst.endswith(".zip"):
            with zipfile.ZipFile(dst, "w") as archive:
                archive.writestr(self.name, "hello")
        else:
            with tarfile.open(dst, "w:gz" if dst.endswith(".gz") else "w") as tar:
                member = tarfile.TarInfo(self.name)
                member.size = 5
                tar.addfile(member, io.BytesIO(b"hello"))


@ours_only
@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_download_is_extracted_beside_the_archive(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = DatasetBase(train_x=[datum(0)])
    folder = tmp_path / "data" / "set"
    monkeypatch.setitem(sys.modules, "gdown", Drive("images/a.txt"))
    dataset.download_data("an address", str(folder / f"archive{suffix}"))
    assert (folder / "images" / "a.txt").read_text() == "hello"
    assert capsys.readouterr().out == f"Extracting file ...\nFile extracted to {folder}\n"
    monkeypatch.setitem(sys.modules, "gdown", Drive("../outside.txt"))
    with contextlib.suppress(tarfile.TarError):
        dataset.download_data("an address", str(folder / f"archive{suffix}"))
    assert not (tmp_path / "data" / "outside.txt").exists()


def test_unknown_dataset_gets_a_guess(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Tints"):
        build_dataset(make_cfg(images, tmp_path, "DATASET.NAME", "Tinst"))


def test_dataset_is_announced(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(build_dataset(make_cfg(images, tmp_path)).test) == 24
    build_dataset(make_cfg(images, tmp_path, "VERBOSE", False))
    assert capsys.readouterr().out == "Loading dataset: Tints\n"


# ---- images


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


def test_images_of_all_kinds_are_read_as_rgb(tmp_path: Path, images: Path) -> None:
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
def test_error_survives_the_way_out_of_a_worker(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be read") as caught:
        read_image(tmp_path / "nowhere.png")
    for copy in (type(caught.value)(str(caught.value)), pickle.loads(pickle.dumps(caught.value))):
        assert str(copy) == str(caught.value)


# ---- DatasetWrapper


def shape(image: Any) -> tuple[int, ...]:
    return tuple(ToTensor()(image).shape)


def test_wrapper_without_transform_gives_the_image(images: Path, tmp_path: Path) -> None:
    items = items_in(images)
    wrapper = DatasetWrapper(make_cfg(images, tmp_path), items)
    assert len(wrapper) == 24
    output = wrapper[4]
    assert isinstance(output.pop("img"), Image.Image)
    assert output == {"label": 1, "domain": 1, "impath": items[4].impath, "index": 4}


def test_wrapper_gives_several_views(images: Path, tmp_path: Path) -> None:
    tfms = [lambda image: "one", lambda image: "two", lambda image: "three"]
    output = DatasetWrapper(make_cfg(images, tmp_path), items_in(images), transform=tfms)[0]
    assert [output[key] for key in ("img", "img2", "img3")] == ["one", "two", "three"]
    assert "img4" not in output


def test_wrapper_repeats_transforms_in_training_alone(images: Path, tmp_path: Path) -> None:
    cfg = make_cfg(images, tmp_path, "DATALOADER.K_TRANSFORMS", 3)
    numbers = iter(range(100))
    options: dict[str, Any] = {"transform": [lambda image: next(numbers)] * 2}
    output = DatasetWrapper(cfg, items_in(images), is_train=True, **options)[0]
    assert (output["img"], output["img2"]) == ([0, 1, 2], [3, 4, 5])
    assert DatasetWrapper(cfg, items_in(images), is_train=False, **options)[0]["img"] == 6
    with pytest.raises(ValueError):
        DatasetWrapper(cfg, items_in(images), is_train=True)[0]


def test_wrapper_gives_the_plain_image(images: Path, tmp_path: Path) -> None:
    cfg = make_cfg(images, tmp_path, "DATALOADER.RETURN_IMG0", True)
    plain = DatasetWrapper(cfg, items_in(images), transform=shape)[3]
    assert plain["img"] == (3, 20, 20)
    assert plain["img0"].shape == (3, 16, 16)
    assert plain["img0"].min() >= 0 and plain["img0"].max() <= 1
    cfg.INPUT.TRANSFORMS = ("normalize",)
    normalized = DatasetWrapper(cfg, items_in(images), transform=shape)[3]["img0"]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    torch.testing.assert_close((normalized - normalized[:, :1, :1]) * std, plain["img0"] - plain["img0"][:, :1, :1])


# ---- loaders


def test_batches(images: Path, tmp_path: Path) -> None:
    cfg = make_cfg(images, tmp_path)
    loader = build_data_loader(cfg, data_source=items_in(images), batch_size=5, tfm=ToTensor(), is_train=False)
    batches = list(loader)
    assert [len(batch["index"]) for batch in batches] == [5, 5, 5, 5, 4]
    assert batches[1]["img"].shape == (5, 3, 20, 20)
    assert torch.equal(batches[1]["label"], torch.tensor([2, 0, 1, 2, 0]))
    assert batches[0]["impath"][1].endswith("01.png")


@given(number=st.integers(1, 24), batch_size=st.integers(1, 30), is_train=st.booleans())
def test_training_drops_the_incomplete_batch(number: int, batch_size: int, is_train: bool) -> None:
    cfg = make_cfg(Path(), Path())
    items = [datum(0)] * number
    loader = build_data_loader(cfg, data_source=items, batch_size=batch_size, tfm=shape, is_train=is_train)
    drops = is_train and number >= batch_size
    assert len(loader) == (number // batch_size if drops else -(-number // batch_size))


def test_no_batch_is_an_error(images: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        build_data_loader(make_cfg(images, tmp_path), data_source=[], batch_size=4, tfm=shape, is_train=False)


class Custom:
    """A wrapper of a plugin's own."""

    def __init__(self, cfg: Any, data_source: Sequence[Datum], transform: Any = None, is_train: bool = False) -> None:
        self.source, self.transform, self.is_train = data_source, transform, is_train

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"is_train": self.is_train, "tfm": self.transform}


def test_manager(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_unlabelled_loader_has_its_own_settings_if_wanted(images: Path, tmp_path: Path) -> None:
    options = ("DATALOADER.TRAIN_U.BATCH_SIZE", 3)
    for more, expected in ((), 8), (("DATALOADER.TRAIN_U.SAME_AS_X", False), 3):
        dm: Any = DataManager(make_cfg(images, tmp_path, *options, *more))
        assert dm.train_loader_u.batch_size == expected


def test_loaders_that_may_be_missing(images: Path, tmp_path: Path) -> None:
    @DATASET_REGISTRY.register(force=True)
    class TintsTrainTest(DatasetBase):
        def __init__(self, cfg: Any) -> None:
            super().__init__(train_x=items_in(images), test=items_in(images))

    dm = DataManager(make_cfg(images, tmp_path, "DATASET.NAME", "TintsTrainTest"))
    assert (dm.train_loader_u, dm.val_loader) == (None, None)


def test_custom_transforms_and_wrapper(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = make_cfg(images, tmp_path, "VERBOSE", False)
    dm = DataManager(cfg, custom_tfm_train="for training", custom_tfm_test="for tests", dataset_wrapper=Custom)
    assert capsys.readouterr().out.splitlines() == [
        "* Using custom transform for training",
        "* Using custom transform for testing",
    ]
    assert dm.train_loader_x.dataset[0] == {"is_train": True, "tfm": "for training"}
    assert dm.test_loader.dataset[0] == {"is_train": False, "tfm": "for tests"}
