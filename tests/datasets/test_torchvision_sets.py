"""Data sets of torchvision, with tiny files in its formats."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets as tv

import datasets  # noqa: F401
from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY
from datasets.torchvision_sets import SETS
from tests.datasets.data_roots import load

LABELS = {"train": [3, 1, 0, 2, 2, 9], "test": [9, 0, 5]}


def pixels(part: str, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(len(part))
    return rng.integers(0, 256, (len(LABELS[part]), *shape), dtype=np.uint8)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_idx(folder: Path) -> np.ndarray:
    """Write the four files of MNIST or Fashion-MNIST. Returns the training images."""
    (folder / "raw").mkdir(parents=True)
    for part, stem in (("train", "train"), ("test", "t10k")):
        images = pixels(part, 28, 28)
        heads = {"images-idx3": (2051, len(images), 28, 28), "labels-idx1": (2049, len(images))}
        bodies = {"images-idx3": images, "labels-idx1": np.array(LABELS[part], np.uint8)}
        for kind, head in heads.items():
            data = b"".join(number.to_bytes(4, "big") for number in head) + bodies[kind].tobytes()
            (folder / "raw" / f"{stem}-{kind}-ubyte").write_bytes(data)
    return pixels("train", 28, 28)


def write_cifar(data: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    folder = data / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sums = {}
    for part, name in (("train", "data_batch_1"), ("test", "test_batch")):
        batch = {"data": pixels(part, 3, 32, 32).reshape(-1, 3072), "labels": LABELS[part]}
        (folder / name).write_bytes(pickle.dumps(batch))
        sums[part] = [name, md5(folder / name)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["x"] * 10}))
    monkeypatch.setattr(tv.CIFAR10, "train_list", [sums["train"]])
    monkeypatch.setattr(tv.CIFAR10, "test_list", [sums["test"]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(tv.CIFAR10, "meta", meta)
    return pixels("train", 3, 32, 32).transpose(0, 2, 3, 1)


def write_svhn(data: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    (data / "svhn").mkdir(parents=True)
    sums = {}
    for part in ("train", "test"):
        path = data / "svhn" / f"{part}_32x32.mat"
        labels = np.array([[label or 10] for label in LABELS[part]])  # 10 stands for zero
        scipy.io.savemat(path, {"X": pixels(part, 32, 32, 3).transpose(1, 2, 3, 0), "y": labels})
        sums[part] = ["nowhere", path.name, md5(path)]
    monkeypatch.setattr(tv.SVHN, "split_list", sums)
    return pixels("train", 32, 32, 3)


@pytest.mark.parametrize(
    ("name", "write"),
    [("CIFAR10", write_cifar), ("SVHN", write_svhn)],  # their parts are named by a flag, and by a text
    ids=["CIFAR10", "SVHN"],
)
def test_images_are_written_once_with_exact_pixels(
    name: str, write: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write(tmp_path, monkeypatch)
    data = load(name, tmp_path)
    assert [item.label for item in data.train_u] == LABELS["train"]
    assert [item.classname for item in data.test] == [data.classnames[label] for label in LABELS["test"]]
    for item, image in zip(data.train_u, images, strict=True):
        assert np.array_equal(np.asarray(Image.open(item.impath)), image)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / SETS[name].folder).rglob("*")}
    assert len(load(name, tmp_path).test) == len(LABELS["test"])
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / SETS[name].folder).rglob("*")}


@pytest.mark.parametrize("parent", [".", "fashion_mnist"])
def test_idx_files_as_downloaded_by_torchvision(parent: str, tmp_path: Path) -> None:
    images = write_idx(tmp_path / parent / "FashionMNIST")
    data = load("FashionMNIST", tmp_path)
    assert [item.classname for item in data.test] == ["ankle boot", "T-shirt", "sandal"]
    assert np.array_equal(np.asarray(Image.open(data.train_u[4].impath)), images[4])
    assert not any(data.classnames[item.label] in item.impath for item in data.train_u)


def test_a_file_with_a_wrong_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, monkeypatch)
    batch = tmp_path / "cifar10" / "cifar-10-batches-py" / "data_batch_1"
    batch.write_bytes(batch.read_bytes() + b" ")  # a wrong checksum: it must not be unpickled
    with pytest.raises(UserError, match=r"bash scripts/data\.sh cifar10"):
        load("CIFAR10", tmp_path)


def test_class_folders(tmp_path: Path) -> None:
    image = Image.fromarray(pixels("train", 8, 8, 3)[0])
    for path in ("train/pickup_truck/a.png", "train/APPLE/b.png", "test/sweet pepper/sub/c.JPG"):
        (tmp_path / "cifar100" / path).parent.mkdir(parents=True)
        image.save(tmp_path / "cifar100" / path)
    data = load("CIFAR100", tmp_path)
    assert {item.classname for item in data.train_u} == {"apple", "pickup truck"}
    assert [item.classname for item in data.test] == ["sweet pepper"]
    (tmp_path / "cifar100" / "test" / "appel").mkdir()
    with pytest.raises(UserError, match="appel is named after no class; did you mean 'apple'"):
        load("CIFAR100", tmp_path)


@pytest.mark.parametrize("count", [1, 2, 100, 0])
@pytest.mark.parametrize(("key", "part"), [("NUM_UNLABELED", "train_u"), ("NUM_TEST", "test")])
def test_subset_is_selected_by_content_hash(tmp_path: Path, key: str, part: str, count: int) -> None:
    write_idx(tmp_path / "mnist" / "MNIST")
    full, some = load("MNIST", tmp_path), load("MNIST", tmp_path, **{key: count})
    for name in ("train_x", "train_u", "test"):
        paths = [item.impath for item in getattr(full, name)]
        if name == part and count:
            by_hash = sorted(paths, key=lambda path: hashlib.sha256(Path(path).read_bytes()).hexdigest())
            assert len(paths) > 2
            paths = [path for path in paths if path in by_hash[:count]]
        assert [item.impath for item in getattr(some, name)] == paths
    with pytest.raises(UserError, match=rf"DATASET\.{key} is -1"):
        load("MNIST", tmp_path, **{key: -1})


def test_config_without_keys_of_the_project(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist" / "MNIST")
    cfg = SimpleNamespace(DATASET=SimpleNamespace(ROOT=str(tmp_path), NUM_SHOTS=-1, SUBSAMPLE_CLASSES="all"))
    assert len(DATASET_REGISTRY.get("MNIST")(cfg).train_u) == len(LABELS["train"])
