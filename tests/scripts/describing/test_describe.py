"""Descriptions of a list of class names, asked of an endpoint on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coft.backbones.descriptions import load_descriptions, names_class
from scripts.describing.classes import NamedClass, named_classes

from .endpoint import Describe, FakeEndpoint, one_line


def test_every_class_is_described(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    assert describe() == 0
    descriptions = json.loads(classes.with_suffix(".json").read_text())
    assert list(descriptions) == ["cat", "golden_retriever", "guinea pig"]
    for name, sentences in descriptions.items():
        assert len(set(sentences)) == 5 and all(names_class(sentence, name) for sentence in sentences)
    assert load_descriptions(classes.with_suffix(".json"))["golden retriever"] == descriptions["golden_retriever"]
    assert {request["model"] for request in endpoint.requests} == {"writer"}
    assert set(endpoint.keys) == {"Bearer secret-key"}


def test_number_pictures_and_meaning_reach_the_model(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes.write_text("crane\ta bird, no machine\n")
    assert describe("--sentences", "3", "--about", "satellite images") == 0
    question = endpoint.requests[0]["messages"][1]["content"]
    assert "Write 3 " in question and "in satellite images. What is meant: a bird, no machine." in question
    assert "1 classes, 3 sentences" in capsys.readouterr().out


def test_what_is_done_is_not_asked_again(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    assert describe() == 0
    out = classes.with_suffix(".json")
    first = out.read_bytes()
    assert describe() == 0 and out.read_bytes() == first and len(endpoint.asked) == 3
    out.unlink()
    assert describe() == 0 and out.read_bytes() == first and len(endpoint.asked) == 3  # from the kept answers
    out.unlink()
    assert describe("--sentences", "2") == 0 and len(endpoint.asked) == 6  # another question


def test_what_the_file_has_is_left_as_it_is(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    out = classes.with_suffix(".json")
    existing = {"Cat": ["A cat of my own words."], "owl": ["An owl that nobody lists."]}
    out.write_text(json.dumps(existing))
    assert describe() == 0
    descriptions = json.loads(out.read_text())
    assert list(descriptions) == ["Cat", "owl", "golden_retriever", "guinea pig"]
    assert descriptions["Cat"] == existing["Cat"] and descriptions["owl"] == existing["owl"]
    assert "cat" not in endpoint.asked


def test_a_file_that_is_none_of_descriptions_is_not_overwritten(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = classes.with_suffix(".json")
    out.write_text("[1, 2]")
    assert describe() == 2 and "expected JSON" in one_line(capsys)
    assert out.read_text() == "[1, 2]" and not endpoint.asked


@pytest.mark.parametrize("damage", ["{", '{"sentences": ["A dog."]}', "[]"])
def test_a_damaged_answer_is_asked_for_again(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, tmp_path: Path, damage: str
) -> None:
    assert describe() == 0
    for path in (tmp_path / "kept").iterdir():
        path.write_text(damage)
    classes.with_suffix(".json").unlink()
    assert describe() == 0 and len(endpoint.asked) == 6


def test_another_model_or_endpoint_is_another_question(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*argv: str) -> int:
        asked = len(endpoint.asked)
        classes.with_suffix(".json").unlink(missing_ok=True)
        assert describe(*argv) == 0
        return len(endpoint.asked) - asked

    assert [again(), again(), again("--model", "other"), again("--about", "drawings")] == [3, 0, 3, 3]
    monkeypatch.setenv("OPENAI_BASE_URL", f"{endpoint.url}/other")
    assert again() == 3


def test_a_folder_that_cannot_be_written_to_costs_no_answer(
    endpoint: FakeEndpoint, describe: Describe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert describe("--out", str(tmp_path / "file" / "pets.json")) == 2
    assert "cannot be written" in one_line(capsys)
    assert describe() == 0 and len(endpoint.asked) == 3


@pytest.mark.parametrize(
    ("flag", "value", "named"),
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
    describe: Describe, classes: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, named: str
) -> None:
    assert describe(flag, value) == 2 and named in one_line(capsys)
    for content in ("\n \n", "a " * 60):
        classes.write_text(content)
        assert describe() == 2 and "--classes" in one_line(capsys)


def test_class_names_are_read_once_with_their_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    path = tmp_path / "classes.txt"
    lines = (
        "\ufeffcrane\tA bird.\tNo machine.\n\n Guinea_Pig \r\nCrane\tlifts things\nn01440764 tench\nn01440765 tench\n"
    )
    path.write_bytes(lines.encode())
    classes = named_classes("classes.txt")
    assert classes == [NamedClass("crane", "A bird. No machine"), NamedClass("Guinea_Pig"), NamedClass("tench")]
    assert classes[1].plain == "Guinea Pig"
    assert named_classes("cat, guinea pig") == [NamedClass("cat"), NamedClass("guinea pig")]


def test_names_may_stand_in_the_command(endpoint: FakeEndpoint, describe: Describe, tmp_path: Path) -> None:
    assert describe("--classes", "cat, guinea pig", "--out", str(tmp_path / "own.json")) == 0
    assert list(load_descriptions(tmp_path / "own.json")) == ["cat", "guinea pig"]
