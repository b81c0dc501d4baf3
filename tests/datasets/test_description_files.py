"""Descriptions shipped with the project: complete, distinct, short, and about their class."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import yaml

from coft.backbones.descriptions import (
    FOLDER,
    MAX_TOKENS,
    Descriptions,
    class_key,
    dataset_descriptions,
    described_datasets,
    load_descriptions,
    names_class,
    num_tokens,
)
from coft.backbones.prompts import plain_name
from coft.core.errors import UserError
from datasets.coop_sets import EUROSAT
from datasets.digits import CLASSNAMES as DIGITS
from datasets.drawings import DECLARED
from datasets.intel import CLASSNAMES as INTEL
from datasets.pacs import CLASSNAMES as PACS
from datasets.torchvision_sets import SETS

CLASS_LISTS = FOLDER.parent / "classnames"
FEW = 50  # with more classes, three sentences of a class are enough
FEWEST_WORDS = 5  # besides those of the class name


def names_in_file(stem: str) -> dict[str, list[str]]:
    """Return sentences by class name as spelled in the file."""
    return dict(json.loads((FOLDER / f"{stem}.json").read_text(encoding="utf-8")))


def class_lists() -> dict[str, list[str]]:
    """Return the class names of data sets that the project lists."""
    lists = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in CLASS_LISTS.glob("*.txt")}
    lists |= {source.folder: list(source.classnames) for source in SETS.values()}
    lists |= {"digits": list(DIGITS), "eurosat": list(EUROSAT.values()), "intel": list(INTEL), "pacs": list(PACS)}
    return lists | json.loads(DECLARED.read_text(encoding="utf-8"))


def registered_names() -> dict[str, str]:
    """Return names in Dassl's registry by data set, from the configs."""
    configs = (FOLDER.parents[1] / "configs" / "datasets").glob("*.yaml")
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["DATASET"]["NAME"] for path in configs}


@pytest.fixture(scope="module", params=described_datasets())
def stem(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def descriptions(stem: str) -> Descriptions:
    return load_descriptions(FOLDER / f"{stem}.json")


@pytest.mark.parametrize("stem", sorted(set(class_lists()) & set(described_datasets())))
def test_described_classes_are_those_of_the_dataset(stem: str) -> None:
    expected = {class_key(name) for name in class_lists()[stem]}
    described = {class_key(name) for name in names_in_file(stem)}
    assert (expected - described, described - expected) == (set(), set())


@pytest.mark.parametrize(("stem", "registered"), sorted(registered_names().items()))
def test_descriptions_exist_for_all_datasets_but_imagenet_and_folder(stem: str, registered: str) -> None:
    if stem == "folder" or stem.startswith("imagenet"):
        with pytest.raises(UserError, match=r"scripts/describe\.sh"):
            dataset_descriptions(registered)
    else:
        assert dataset_descriptions(registered) == load_descriptions(FOLDER / f"{stem}.json")


def test_sentences_are_enough_unique_and_about_their_class(descriptions: Descriptions) -> None:
    least = 5 if len(descriptions) <= FEW else 3
    assert {name for name, sentences in descriptions.items() if len(sentences) < least} == set()
    pairs = [(name, sentence) for name, sentences in descriptions.items() for sentence in sentences]
    counts = Counter(class_key(sentence).rstrip(".") for _, sentence in pairs)
    assert [sentence for sentence, times in counts.items() if times > 1] == []
    patterns = Counter(class_key(sentence).replace(name, "{}") for name, sentence in pairs)
    assert [pattern for pattern, times in patterns.items() if times > 2] == []  # templates
    assert [s for n, s in pairs if not names_class(s, n) or num_tokens(s) > MAX_TOKENS] == []
    assert [s for n, s in pairs if len(s.split()) - len(plain_name(n).split()) < FEWEST_WORDS] == []
