"""Descriptions of a list of class names, written by an endpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coft.backbones.descriptions import load_descriptions, names_class
from scripts.describing.classes import NamedClass, named_classes

from .endpoint import Describe, FakeEndpoint, one_line


def test_all_classes_are_described(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    assert describe() == 0
    descriptions = json.loads(classes.with_suffix(".json").read_text())
    assert list(descriptions) == ["cat", "golden_retriever", "guinea pig"]
    for name, sentences in descriptions.items():
        assert len(set(sentences)) == 5 and all(names_class(sentence, name) for sentence in sentences)
    assert load_descriptions(classes.with_suffix(".json"))["golden retriever"] == descriptions["golden_retriever"]
    assert {request["model"] for request in endpoint.requests} == {"writer"}
    assert set(endpoint.keys) == {"Bearer secret-key"}


def test_question_contains_number_subject_and_meaning(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes.write_text("crane\ta bird, no machine\n")
    assert describe("--sentences", "3", "--about", "satellite images") == 0
    question = endpoint.requests[0]["messages"][1]["content"]
    assert "Write 3 " in question and "in satellite images. What is meant: a bird, no machine." in question
    assert "1 classes, 3 sentences" in capsys.readouterr().out


def test_finished_classes_are_not_requested_again(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    assert describe() == 0
    out = classes.with_suffix(".json")
    first = out.read_bytes()
    assert describe() == 0 and out.read_bytes() == first and len(endpoint.asked) == 3


def test_existing_descriptions_are_kept(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    out = classes.with_suffix(".json")
    existing = {"Cat": ["A cat in a user's words."], "owl": ["An owl that is not listed."]}
    out.write_text(json.dumps(existing))
    assert describe() == 0
    descriptions = json.loads(out.read_text())
    assert list(descriptions) == ["Cat", "owl", "golden_retriever", "guinea pig"]
    assert descriptions["Cat"] == existing["Cat"] and descriptions["owl"] == existing["owl"]
    assert "cat" not in endpoint.asked


def test_other_file_is_not_overwritten(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = classes.with_suffix(".json")
    out.write_text("[1, 2]")
    assert describe() == 2 and "expected JSON" in one_line(capsys)
    assert out.read_text() == "[1, 2]" and not endpoint.asked


def test_unwritable_output_is_refused_before_any_request(
    endpoint: FakeEndpoint, describe: Describe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert describe("--out", str(tmp_path / "file" / "pets.json")) == 2
    assert "--out" in one_line(capsys) and not endpoint.asked


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--model", "", "--model"),
        ("--timeout", "nan", "timeout is nan"),
        ("--timeout", "inf", "--timeout"),
        ("--timeout", "1e9", "--timeout"),
        ("--workers", "1000000", "--workers"),
        ("--sentences", "0", "--sentences"),
        ("--retries", "-1", "--retries"),
        ("--attempts", "99999999999", "--attempts"),
        ("--classes", "nowhere.txt", "--classes"),
        ("--classes", "cat, dog", "--out"),
        ("--classes", "cat, dog, cat", "'cat'"),
    ],
)
def test_mistakes_are_one_line(
    describe: Describe, classes: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, message: str
) -> None:
    assert describe(flag, value) == 2 and message in one_line(capsys)
    for content in ("\n \n", "a " * 60):
        classes.write_text(content)
        assert describe() == 2 and "--classes" in one_line(capsys)


def test_class_names_with_meanings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    path = tmp_path / "classes.txt"
    lines = "\ufeffcrane\tA bird.\tNo machine.\n\n Guinea_Pig \r\nn01440764 tench\nn01440765 tench\n"
    path.write_bytes(lines.encode())
    classes = named_classes("classes.txt")
    assert classes == [NamedClass("crane", "A bird. No machine"), NamedClass("Guinea_Pig"), NamedClass("tench")]
    assert classes[1].plain == "Guinea Pig"
    assert named_classes("cat, guinea pig") == [NamedClass("cat"), NamedClass("guinea pig")]


def test_class_names_on_the_command_line(endpoint: FakeEndpoint, describe: Describe, tmp_path: Path) -> None:
    assert describe("--classes", "cat, guinea pig", "--out", str(tmp_path / "pets.json")) == 0
    assert list(load_descriptions(tmp_path / "pets.json")) == ["cat", "guinea pig"]
