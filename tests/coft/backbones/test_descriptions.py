from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from clip import clip
from clip.model import CLIP

from coft.backbones.descriptions import (
    dataset_descriptions,
    described_features,
    load_descriptions,
    names_class,
    sentences_by_class,
)
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
def test_features_equal_a_naive_loop(clip_model: CLIP, share: float) -> None:
    expected = []
    for name in ("cat", "Golden Retriever"):
        template_mean = F.normalize(sum(encode(clip_model, template.format(name)) for template in TEMPLATES), dim=-1)  # type: ignore[arg-type]
        texts = [f"{sentence} a photo of a {name}." for sentence in SENTENCES[name.lower()]]
        sentence_mean = F.normalize(sum(encode(clip_model, text) for text in texts), dim=-1)  # type: ignore[arg-type]
        expected.append(F.normalize((1 - share) * template_mean + share * sentence_mean, dim=-1))
    features = described_features(clip_model, NAMES, TEMPLATES, SENTENCES, share)
    torch.testing.assert_close(features, torch.stack(expected), atol=1e-5, rtol=0)


def test_a_long_sentence_is_encoded_without_the_template(clip_model: CLIP) -> None:
    long = "A cat " + "with a tail " * 22 + "here."
    assert int(clip.tokenize(long).argmax()) < 77
    features = described_features(clip_model, ["cat", "dog"], TEMPLATES, {"cat": [long], "dog": ["A dog."]}, share=1)
    torch.testing.assert_close(features[0], encode(clip_model, long), atol=1e-5, rtol=0)


def test_the_chunk_size_does_not_change_features(clip_model: CLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = described_features(clip_model, NAMES, TEMPLATES, SENTENCES)
    monkeypatch.setattr("coft.backbones.descriptions.CHUNK", 3)
    torch.testing.assert_close(described_features(clip_model, NAMES, TEMPLATES, SENTENCES), whole, atol=1e-5, rtol=0)


def test_sentences_are_in_the_order_of_class_names() -> None:
    ordered = sentences_by_class(["Golden_retriever", " CAT"], SENTENCES)
    assert ordered == [SENTENCES["golden retriever"], SENTENCES["cat"]]


def test_a_missing_class_is_named() -> None:
    with pytest.raises(UserError, match="descriptions: no sentence for class 'dog' and 1 more; add it"):
        sentences_by_class(["cat", "dog", "owl"], SENTENCES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('{"cat": ["A cat.", 3]}', r"class 'cat'\[1\] is 3; expected a text"),
        ('{"cat": []}', r"class 'cat' is \[\]; expected a list of 1 to"),
        ('{"cat": ["A cat.", "a  CAT."]}', "is listed twice"),
        (json.dumps({"cat": ["A cat. " + "very " * 80]}), r"has \d+ tokens, CLIP reads 77"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "pets.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_descriptions(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["fashion_mnist", "FashionMNIST", "EuroSAT"])
def test_descriptions_are_found_by_file_name_and_registry_name(name: str) -> None:
    assert len(dataset_descriptions(name)) == 10


def test_an_unknown_data_set_is_refused_with_the_nearest_name() -> None:
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
def test_names_class_compares_whole_words(sentence: str, classname: str, expected: bool) -> None:
    assert names_class(sentence, classname) is expected
