"""ImageNet and its test sets, in small data roots of CoOp's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from coft.core.errors import UserError
from datasets.imagenet import ImageNetA, ImageNetR, ImageNetSketch, ImageNetV2
from tests.datasets.data_roots import in_folders, load, synsets, touch


def make_imagenet(root: Path) -> list[str]:
    names = synsets(root)
    for part in ("train", "val"):
        in_folders(root / "imagenet" / "images" / part, names, 3)
    return list(names.values())


def test_imagenet_is_tested_on_validation_images(tmp_path: Path) -> None:
    names = make_imagenet(tmp_path)
    data = load("ImageNet", tmp_path)
    assert data.classnames == names and names.count("missile") == 2
    assert len(data.train_u) == len(data.test) == 15 and not data.val
    assert all("/train/" in item.impath for item in data.train_x) and all("/val/" in i.impath for i in data.test)
    assert load("ImageNet", tmp_path, SUBSAMPLE_CLASSES="new").classnames == ["owl", "missile"]


@pytest.mark.parametrize("kind", [ImageNetV2, ImageNetSketch, ImageNetA, ImageNetR], ids=lambda kind: kind.name)
def test_test_sets_use_names_of_imagenet(tmp_path: Path, kind: type) -> None:
    names = synsets(tmp_path)
    tested_names = dict(list(names.items())[1:4]) if kind.name in ("imagenet_a", "imagenet_r") else names
    folders = [str(i) for i in range(len(names))] if kind.name == "imagenetv2" else list(tested_names)
    images = tmp_path / kind.dataset_dir / kind.images
    in_folders(images, folders, 2)
    touch(images / "README.txt")
    data = load(kind.__name__, tmp_path)
    assert data.classnames == list(tested_names.values()) and len(data.test) == 2 * len(folders)
    assert data.unlabeled_part == "test images (transductive)"
    assert [item.label for item in data.test[::2]] == list(range(len(tested_names)))


def test_missing_or_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"classnames[.]txt"):
        load("ImageNet", tmp_path)
    make_imagenet(tmp_path)
    with pytest.raises(UserError, match=r"bash scripts/data.sh imagenet_r"):
        load("ImageNetR", tmp_path)
    touch(tmp_path / "imagenet" / "images" / "val" / "n999" / "a.jpg")
    with pytest.raises(UserError, match="n999"):
        load("ImageNet", tmp_path)
    (tmp_path / "imagenet" / "classnames.txt").write_text("tench\n")
    with pytest.raises(UserError, match="classnames"):
        load("ImageNet", tmp_path)
