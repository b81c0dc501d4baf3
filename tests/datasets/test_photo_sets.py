"""Intel's scenes and PACS: every layout that is accepted, mistakes, and the real images where they are."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import datasets
from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY
from datasets import intel, pacs
from datasets.templates import templates_of
from scripts.paths import data_folder
from tests.datasets.rooms import config, in_folders, touch

CONFIGS = Path(datasets.__file__).parents[1] / "configs" / "datasets"
KAGGLE = ("intel/seg_train/seg_train", "intel/seg_test/seg_test")
SPLIT = {"train": "photo/{}/image_0000.jpg", "crossval": "photo/{}/image_0001.jpg", "test": "photo/{}/image_0002.jpg"}
DATA = data_folder()


def scenes(root: Path, **options: Any) -> Any:
    return intel.IntelScenes(config(root, **options))


def domain_of(root: Path, **options: Any) -> Any:
    return pacs.PACSDomain(config(root, **options))


def parts_of(data: Any) -> list[list[str]]:
    """Class folder and file of each image of train, val and test."""
    return [["/".join(Path(i.impath).parts[-2:]) for i in items] for items in (data.train_x, data.val or [], data.test)]


def write_lists(folder: Path, lines: dict[str, Sequence[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in lines.items():
        (folder / f"photo_{part}_kfold.txt").write_text("".join(f"{row}\n" for row in rows))


def apart() -> dict[str, list[str]]:
    """Lists whose test has images of its own."""
    return {
        part: [f"{path.format(name)} {i}" for i, name in enumerate(pacs.CLASSNAMES, 1)] for part, path in SPLIT.items()
    }


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
def test_layouts_of_the_scenes(tmp_path: Path, train: str, test: str) -> None:
    in_folders(tmp_path / train, intel.CLASSNAMES, 3)
    in_folders(tmp_path / test, intel.CLASSNAMES, 2)
    touch(tmp_path / Path(train).parts[0] / "seg_pred" / "seg_pred" / "10004.jpg")
    data = scenes(tmp_path)
    assert data.classnames == ["buildings", "forest", "glacier", "mountain", "sea", "street"]
    assert (len(data.train_u), data.val, len(data.test)) == (18, None, 12)
    for item in (*data.train_u, *data.test):
        assert item.classname == Path(item.impath).parent.name == data.classnames[item.label]


def test_a_folder_without_both_parts_does_not_hide_one_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "intel" / "seg_train").mkdir(parents=True)
    for part in ("train", "test"):
        in_folders(tmp_path / "intel_scenes" / part, intel.CLASSNAMES, 1)
    assert Path(scenes(tmp_path).dataset_dir).name == "intel_scenes"


def test_which_scenes_are_unlabeled_and_what_they_are_called_does_not_depend_on_labels(tmp_path: Path) -> None:
    """All training images of one class, or shuffled over the classes: classes and unlabeled images stay."""
    in_folders(tmp_path / "a" / "intel" / "train", ["sea"], 6)
    for i, name in enumerate(intel.CLASSNAMES):
        touch(tmp_path / "b" / "intel" / "train" / name / f"image_{i:04d}.jpg")
    found = []
    for root in (tmp_path / "a", tmp_path / "b"):
        in_folders(root / "intel" / "test", ["sea"], 1)
        data = scenes(root)
        found.append((data.classnames, data.num_classes, sorted(Path(item.impath).name for item in data.train_u)))
    assert found[0] == found[1]


def test_mistakes_with_the_scenes(tmp_path: Path) -> None:
    def fails(message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            scenes(tmp_path)
        assert "\n" not in str(error.value)

    root = re.escape(str(tmp_path / "intel"))
    fails(f"IntelScenes: no intel at {root}; see: bash scripts/data.sh intel, or set DATA")
    (tmp_path / KAGGLE[0]).mkdir(parents=True)
    fails(f"no seg_test or test at {root}; see: bash scripts/data.sh intel")
    in_folders(tmp_path / KAGGLE[1], intel.CLASSNAMES, 1)
    fails("seg_train/seg_train has no images; expected them in folders of classes, such as buildings/")
    in_folders(tmp_path / KAGGLE[0], ["streets"], 1)
    fails("folder .*/streets is named after no class; did you mean 'street'")


# ---------------------------------------------------------------- PACS


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with ten photos of each class."""
    root = tmp_path_factory.mktemp("photos")
    in_folders(root / "pacs" / "photo", pacs.CLASSNAMES, 10)
    return root


@pytest.mark.parametrize("place", ["PACS", "PACS/kfold", "pacs/images", "pacs_data", "pacs/pacs_data"])
def test_every_layout_of_a_domain_has_one_split(tmp_path: Path, photos: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    shutil.copytree(photos / "pacs" / "photo", tmp_path / place / "photo")
    data = domain_of(tmp_path)
    assert parts_of(data) == parts_of(domain_of(photos))
    train, val, test = (set(part) for part in parts_of(data))
    assert (len(train), len(val), len(test)) == (35, 14, 21) and not train & val and not test & (train | val)
    assert set(Counter(item.label for item in data.test).values()) == {3}
    assert data.train_u == data.train_x and data.unlabeled_part == "training images"


@pytest.mark.parametrize(
    ("written", "domain", "template"),
    [
        ("photo", "photo", "a photo of a {}."),
        ("art_painting", "art_painting", "an art painting of a {}."),
        ("Art painting", "art_painting", "an art painting of a {}."),
        ("art", "art_painting", "an art painting of a {}."),
        ("cartoon", "cartoon", "a cartoon of a {}."),
        ("sketch", "sketch", "a sketch of a {}."),
    ],
)
def test_one_key_chooses_the_domain(tmp_path: Path, written: str, domain: str, template: str) -> None:
    for other in pacs.DOMAINS:
        in_folders(tmp_path / "pacs" / other, pacs.CLASSNAMES, 6)
    data = domain_of(tmp_path, DOMAIN=written)
    for item in (*data.train_u, *data.val, *data.test):
        assert Path(item.impath).parts[-3:-1] == (domain, data.classnames[item.label])
    assert data.templates[0] == template and data.title == f"PACS {domain}"


def test_photos_are_the_default(photos: Path) -> None:
    assert domain_of(photos).title == "PACS photo"
    assert yaml.safe_load((CONFIGS / "pacs.yaml").read_text())["DATASET"]["DOMAIN"] == "photo"


@pytest.mark.parametrize("options", [{"SOURCE_DOMAINS": ["photo"]}, {"TARGET_DOMAINS": ["photo"]}])
def test_dassls_keys_for_several_domains_are_refused(photos: Path, options: dict[str, Any]) -> None:
    key = next(iter(options))
    with pytest.raises(UserError, match=rf"DATASET\.{key} is set, but PACSDomain has one domain; use DATASET\.DOMAIN"):
        domain_of(photos, **options)


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("cartoons", r"DATASET\.DOMAIN is 'cartoons'; expected one of photo, .*, sketch; did you mean 'cartoon'\?"),
        ("xyz", r"DATASET\.DOMAIN is 'xyz'; expected one of photo, art_painting, cartoon, sketch$"),
        ("", r"DATASET\.DOMAIN is ''; expected one of photo"),
    ],
)
def test_domains_that_do_not_exist(photos: Path, domain: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        domain_of(photos, DOMAIN=domain)


def test_a_domain_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no photo at .*pacs/photo; see: bash scripts/data\.sh pacs, or set DATA"):
        domain_of(tmp_path)
    in_folders(tmp_path / "pacs" / "images" / "cartoon", pacs.CLASSNAMES, 6)
    with pytest.raises(UserError, match=r"no photo at .*/photo, but cartoon; write DATASET\.DOMAIN cartoon, or see"):
        domain_of(tmp_path)
    assert domain_of(tmp_path, DOMAIN="cartoon").num_classes == 7


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "pacs" / "photo").mkdir(parents=True)
    with pytest.raises(UserError, match=r"pacs/photo has no images; expected them in folders of classes, such as dog/"):
        domain_of(tmp_path)
    in_folders(tmp_path / "pacs" / "photo", ["guitars"], 6)
    with pytest.raises(UserError, match="guitars is named after no class; did you mean 'guitar'"):
        domain_of(tmp_path)


# ---------------------------------------------------------------- lists of PACS


@pytest.mark.parametrize("place", ["splits", "pacs_label", "images", "."])
def test_lists_that_keep_the_test_apart_are_used(tmp_path: Path, place: str) -> None:
    in_folders(tmp_path / "pacs" / "images" / "photo", pacs.CLASSNAMES, 4)
    write_lists(tmp_path / "pacs" / place, apart())
    train, val, test = parts_of(domain_of(tmp_path))
    for number, part in enumerate((train, val, test)):
        assert part == [f"{name}/image_{number:04d}.jpg" for name in pacs.CLASSNAMES]


def test_lists_as_published_test_on_everything_so_the_domain_is_split(tmp_path: Path, photos: Path) -> None:
    shutil.copytree(photos / "pacs" / "photo", tmp_path / "pacs" / "images" / "photo")
    lines = apart()
    write_lists(tmp_path / "pacs" / "splits", {**lines, "test": [*lines["train"], *lines["crossval"]]})
    assert parts_of(domain_of(tmp_path)) == parts_of(domain_of(photos))


@pytest.mark.parametrize(
    "line", ["photo/dog/image_0002.jpg 0", "photo/dog/image_0002.jpg", "photo/cat/a.jpg 1", "a 1 2"]
)
def test_lines_of_another_form(tmp_path: Path, line: str) -> None:
    in_folders(tmp_path / "pacs" / "photo", pacs.CLASSNAMES, 4)
    write_lists(tmp_path / "pacs" / "splits", {**apart(), "test": [line]})
    with pytest.raises(
        UserError, match=rf"photo_test_kfold\.txt: '{line}' is no path .*\(dog 1, .*person 7\); mend it"
    ):
        domain_of(tmp_path)


def test_a_listed_image_that_is_missing(tmp_path: Path) -> None:
    in_folders(tmp_path / "pacs" / "photo", pacs.CLASSNAMES, 2)
    write_lists(tmp_path / "pacs" / "splits", apart())
    with pytest.raises(UserError, match=r"photo/dog/image_0002\.jpg is missing, though the data set's split names it"):
        domain_of(tmp_path)


# ---------------------------------------------------------------- both


@pytest.mark.parametrize(
    ("config_name", "name"), [("intel", "IntelScenes"), ("pacs", "PACSDomain"), ("cifar10", "CIFAR10")]
)
def test_photographs_are_augmented_as_such_and_have_several_templates(config_name: str, name: str) -> None:
    content = yaml.safe_load((CONFIGS / f"{config_name}.yaml").read_text())
    assert (content["DATASET"]["NAME"], content["INPUT"]["AUGMENT"]) == (name, "natural")
    assert name in DATASET_REGISTRY.registered_names()
    for templates in (templates_of(name), *pacs.TEMPLATES.values()):
        assert len(set(templates)) == len(templates) >= 4
        assert all(template.count("{}") == 1 and template.endswith(".") for template in templates)


@pytest.mark.parametrize(
    ("find", "folder"),
    [(intel.find_root, "intel_scenes/seg_train/seg_train intel_scenes/test"), (pacs.find_root, "PACS/kfold/sketch")],
)
def test_what_is_there_is_found(tmp_path: Path, find: Callable[[Path], Path | None], folder: str) -> None:
    assert find(tmp_path) is None
    for place in folder.split():
        (tmp_path / place).mkdir(parents=True)
    assert find(tmp_path) == tmp_path / folder.split("/")[0]


@pytest.mark.skipif(intel.find_root(DATA) is None, reason="needs Intel's scenes in $DATA: bash scripts/data.sh intel")
def test_the_real_scenes() -> None:
    data = scenes(DATA)
    assert {item.label for item in data.test} == {item.label for item in data.train_u} == set(range(6))
    assert not {item.impath for item in data.train_u} & {item.impath for item in data.test}


SIZES = {"photo": 1670, "art_painting": 2048, "cartoon": 2344, "sketch": 3929}


@pytest.mark.parametrize("domain", SIZES)
def test_the_real_domains(domain: str) -> None:
    if pacs.find_images(DATA, [domain]) is None:
        pytest.skip(f"needs PACS's {domain} in $DATA: bash scripts/data.sh pacs")
    data = domain_of(DATA, DOMAIN=domain)
    assert len(data.train_u) + len(data.val) + len(data.test) == SIZES[domain]
    assert {item.label for item in data.test} == set(range(7))
