"""Intel's scenes and PACS: accepted layouts and mistakes."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import datasets
from coft.core.errors import UserError
from datasets import intel, pacs
from tests.datasets.data_roots import config, in_folders, touch

CONFIGS = Path(datasets.__file__).parents[1] / "configs" / "datasets"
KAGGLE = ("intel/seg_train/seg_train", "intel/seg_test/seg_test")


def scenes(root: Path, **options: Any) -> Any:
    return intel.IntelScenes(config(root, **options))


def domain_of(root: Path, **options: Any) -> Any:
    return pacs.PACSDomain(config(root, **options))


def parts_of(data: Any) -> list[list[str]]:
    """Return class folder and file of the images of train, val and test."""
    return [["/".join(Path(i.impath).parts[-2:]) for i in items] for items in (data.train_x, data.val or [], data.test)]


# ---------------------------------------------------------------- Intel's scenes


@pytest.mark.parametrize(
    ("train", "test"),
    [
        KAGGLE,
        ("intel/seg_train", "intel/seg_test"),
        ("intel/seg_train/seg_train", "intel/seg_test"),
        ("intel/train", "intel/test"),
        ("intel-image-classification/seg_train/seg_train", "intel-image-classification/seg_test/seg_test"),
        ("intel_scenes/train", "intel_scenes/test"),
    ],
)
def test_layouts_of_intel(tmp_path: Path, train: str, test: str) -> None:
    in_folders(tmp_path / train, intel.CLASSNAMES, 3)
    in_folders(tmp_path / test, intel.CLASSNAMES, 2)
    touch(tmp_path / Path(train).parts[0] / "seg_pred" / "seg_pred" / "10004.jpg")
    data = scenes(tmp_path)
    assert data.classnames == ["buildings", "forest", "glacier", "mountain", "sea", "street"]
    assert (len(data.train_u), data.val, len(data.test)) == (18, None, 12)
    for item in (*data.train_u, *data.test):
        assert item.classname == Path(item.impath).parent.name == data.classnames[item.label]


def test_incomplete_folder_does_not_hide_a_complete_one(tmp_path: Path) -> None:
    (tmp_path / "intel" / "seg_train").mkdir(parents=True)
    for part in ("train", "test"):
        in_folders(tmp_path / "intel_scenes" / part, intel.CLASSNAMES, 1)
    assert Path(scenes(tmp_path).dataset_dir).name == "intel_scenes"


def test_classes_and_unlabeled_images_do_not_depend_on_labels(tmp_path: Path) -> None:
    """Training images of one class, or of all classes."""
    in_folders(tmp_path / "a" / "intel" / "train", ["sea"], 6)
    for i, name in enumerate(intel.CLASSNAMES):
        touch(tmp_path / "b" / "intel" / "train" / name / f"image_{i:04d}.jpg")
    outcomes = []
    for root in (tmp_path / "a", tmp_path / "b"):
        in_folders(root / "intel" / "test", ["sea"], 1)
        data = scenes(root)
        outcomes.append((data.classnames, data.num_classes, sorted(Path(item.impath).name for item in data.train_u)))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("load", "folders"), [(scenes, ("intel/train", "intel/test")), (domain_of, ("pacs/photo", "pacs/cartoon"))]
)
def test_missing_empty_or_unknown_folders_are_named(
    tmp_path: Path, load: Callable[[Path], Any], folders: tuple[str, str]
) -> None:
    first, second = folders
    with pytest.raises(UserError, match=f"bash scripts/data.sh {Path(first).parts[0]}"):
        load(tmp_path)
    in_folders(tmp_path / second, [*intel.CLASSNAMES, *pacs.CLASSNAMES][:1], 6)
    with pytest.raises(UserError, match=str(tmp_path / Path(first).parent)):
        load(tmp_path)
    (tmp_path / first).mkdir()
    with pytest.raises(UserError, match=first):
        load(tmp_path)
    in_folders(tmp_path / first, ["guitars"], 6)
    with pytest.raises(UserError, match="guitars"):
        load(tmp_path)


# ---------------------------------------------------------------- PACS


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root with ten photos of each class."""
    root = tmp_path_factory.mktemp("photos")
    in_folders(root / "pacs" / "photo", pacs.CLASSNAMES, 10)
    return root


@pytest.mark.parametrize("subfolder", ["PACS", "PACS/kfold", "pacs/images", "pacs_data", "pacs/pacs_data"])
def test_layouts_of_a_domain_have_the_same_split(tmp_path: Path, photos: Path, subfolder: str) -> None:
    (tmp_path / subfolder).mkdir(parents=True)
    shutil.copytree(photos / "pacs" / "photo", tmp_path / subfolder / "photo")
    data = domain_of(tmp_path)
    assert parts_of(data) == parts_of(domain_of(photos))
    train, val, test = (set(part) for part in parts_of(data))
    assert (len(train), len(val), len(test)) == (35, 14, 21) and not train & val and not test & (train | val)
    assert set(Counter(item.label for item in data.test).values()) == {3}
    assert data.train_u == data.train_x and data.unlabeled_part == "training images"


@pytest.mark.parametrize(
    ("key", "domain", "template"),
    [
        ("photo", "photo", "a photo of a {}."),
        ("art_painting", "art_painting", "an art painting of a {}."),
        ("Art painting", "art_painting", "an art painting of a {}."),
        ("art", "art_painting", "an art painting of a {}."),
        ("cartoon", "cartoon", "a cartoon of a {}."),
        ("sketch", "sketch", "a sketch of a {}."),
    ],
)
def test_key_selects_domain(tmp_path: Path, key: str, domain: str, template: str) -> None:
    for other in pacs.DOMAINS:
        in_folders(tmp_path / "pacs" / other, pacs.CLASSNAMES, 6)
    data = domain_of(tmp_path, DOMAIN=key)
    for item in (*data.train_u, *data.val, *data.test):
        assert Path(item.impath).parts[-3:-1] == (domain, data.classnames[item.label])
    assert data.templates[0] == template and data.title == f"PACS {domain}"


@pytest.mark.parametrize(
    "options", [{"SOURCE_DOMAINS": ["photo"]}, {"TARGET_DOMAINS": ["photo"]}, {"DOMAIN": "cartoons"}, {"DOMAIN": ""}]
)
def test_unknown_domains_are_refused(photos: Path, options: dict[str, Any]) -> None:
    assert domain_of(photos).title == "PACS photo"
    with pytest.raises(UserError, match=rf"DATASET\.{next(iter(options))}"):
        domain_of(photos, **options)


def test_a_link_to_nothing_is_named_and_a_loop_of_links_is_read_once(tmp_path: Path) -> None:
    root = tmp_path / "intel"
    for part in ("train", "test"):
        in_folders(root / part, intel.CLASSNAMES, 2)
    (root / "train" / "sea" / "loop").symlink_to("../sea")
    assert len(scenes(tmp_path).train_u) == 2 * len(intel.CLASSNAMES)
    (root / "train" / "sea" / "x.jpg").symlink_to("/nowhere/x.jpg")
    with pytest.raises(UserError, match=r"sea/x\.jpg is missing"):
        scenes(tmp_path)
