from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from clip import clip
from clip.model import CLIP

from coft.backbones.descriptions import (
    class_key,
    dataset_descriptions,
    described_features,
    load_descriptions,
    names_class,
    sentences_by_class,
)
from coft.backbones.prompts import ensemble_features
from coft.core.errors import UserError

NAMES = ["cat", "Golden_Retriever"]
TEMPLATES = ["a photo of a {}.", "a {} outside."]
SENTENCES = {
    "cat": ["A cat has whiskers.", "A cat with a long tail.", "A cat, small and soft."],
    "golden retriever": ["A golden retriever with a long wavy coat."],
}


def encode(model: CLIP, text: str) -> torch.Tensor:
    return F.normalize(model.encode_text(clip.tokenize(text))[0], dim=-1)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_features_equal_a_plain_loop(clip_model: CLIP, share: float) -> None:
    expected = []
    for name in ("cat", "Golden Retriever"):
        named = F.normalize(sum(encode(clip_model, t.format(name)) for t in TEMPLATES), dim=-1)  # type: ignore[arg-type]
        texts = [f"{s} a photo of a {name}." for s in SENTENCES[name.lower()]]
        described = F.normalize(sum(encode(clip_model, text) for text in texts), dim=-1)  # type: ignore[arg-type]
        expected.append(F.normalize((1 - share) * named + share * described, dim=-1))
    found = described_features(clip_model, NAMES, TEMPLATES, SENTENCES, share)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)


def test_without_a_share_descriptions_change_nothing(clip_model: CLIP) -> None:
    found = described_features(clip_model, NAMES, TEMPLATES, SENTENCES, share=0)
    torch.testing.assert_close(found, ensemble_features(clip_model, NAMES, TEMPLATES), atol=1e-6, rtol=0)


def test_a_sentence_that_leaves_no_room_for_the_template_stands_alone(clip_model: CLIP) -> None:
    long = "A cat " + "with a tail " * 22 + "here."
    assert int(clip.tokenize(long).argmax()) < 77
    found = described_features(clip_model, ["cat", "dog"], TEMPLATES, {"cat": [long], "dog": ["A dog."]}, share=1)
    torch.testing.assert_close(found[0], encode(clip_model, long), atol=1e-5, rtol=0)


def test_many_sentences_are_encoded_in_chunks(clip_model: CLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = described_features(clip_model, NAMES, TEMPLATES, SENTENCES)
    monkeypatch.setattr("coft.backbones.descriptions.CHUNK", 3)
    torch.testing.assert_close(described_features(clip_model, NAMES, TEMPLATES, SENTENCES), whole, atol=1e-5, rtol=0)


def test_sentences_come_in_the_order_of_the_class_names() -> None:
    found = sentences_by_class(["Golden_retriever", " CAT"], SENTENCES)
    assert found == [SENTENCES["golden retriever"], SENTENCES["cat"]]


def test_a_missing_class_is_named() -> None:
    with pytest.raises(UserError, match=r"pets\.json: no sentence for class 'dog' and 1 more; add it"):
        sentences_by_class(["cat", "dog", "owl"], SENTENCES, "pets.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "expected JSON"),
        ("{}", "expected JSON"),
        ('{"cat": "A cat."}', "class 'cat': expected JSON"),
        ('{"cat": ["A cat.", 3]}', "class 'cat': expected JSON"),
        ('{"cat": ["A cat.", " "]}', "without empty sentences"),
        ('{"cat": []}', "class 'cat': no sentence"),
        ('{"cat": ["A cat.", "a  CAT."]}', "class 'cat': the sentence 'a  CAT.' stands there twice"),
        (json.dumps({"cat": ["A cat. " + "very " * 80]}), r"has \d+ tokens, CLIP reads 77"),
    ],
)
def test_a_bad_file_is_refused_in_a_line_that_names_it(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "pets.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_descriptions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "no.json"))):
        load_descriptions(tmp_path / "no.json")


@pytest.mark.parametrize("name", ["fashion_mnist", "FashionMNIST", "EuroSAT"])
def test_a_data_set_is_known_by_file_and_by_registry_name(name: str) -> None:
    assert len(dataset_descriptions(name)) == 10


def test_an_unknown_data_set_gets_a_proposal() -> None:
    with pytest.raises(UserError, match="did you mean 'eurosat'"):
        dataset_descriptions("eurosatt")


@pytest.mark.parametrize(
    ("sentence", "classname", "expected"),
    [
        ("A Golden Retriever runs.", "golden_retriever", True),
        ("A category of things.", "cat", False),
        ("A t-shirt, folded.", "T-shirt", True),
        ("Two cats.", "cat", False),
    ],
)
def test_a_class_is_named_by_words_of_its_own(sentence: str, classname: str, expected: bool) -> None:
    assert names_class(sentence, classname) is expected


def test_keys_ignore_case_underscores_and_blanks() -> None:
    assert class_key(" Golden_ Retriever") == class_key("golden retriever")
